package reference

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/menshen-io/menshen/models"
)

// Name is the model's name in the registry.
const Name = "reference-512"

const producer = "menshen"

// modelSHA256 pins what Model writes, so that templates made by one build are
// good for the next. It changes with any weight; templates of the old model are
// then those of another model.
const modelSHA256 = "b503dfd8cfdada12071389cfd9e9a7bbb0a0d212e4feebadf3ca5ca5aaa42f74"

// Model returns the model as ONNX bytes, the same on every call and every
// machine: input "input", float32 N x 3 x 112 x 112, RGB, (x-127.5)/127.5;
// output "embedding", float32 N x 512, neither normalised nor bounded. The
// caller owns the slice. The error is ErrProjection, in a damaged build.
func Model() ([]byte, error) {
	p, err := decodeProjection(projectionFile)
	if err != nil {
		return nil, err
	}
	if p.fittedTo != sha256.Sum256(FeatureModel()) {
		return nil, fmt.Errorf("%w: fitted to other features than this build's: run the fit again (go run ./bench/faces/fitreference)", ErrProjection)
	}
	g := &graph{name: "menshen-reference"}
	addProjection(g, addFeatures(g), p)
	return g.model(producer, "Menshen's reference face embedder: for evaluation and tests, not for recognising people."), nil
}

// Manifest describes the model for the registry. Its threshold and calibration
// were measured on synthetic faces (bench/faces) and hold for those alone.
func Manifest() models.Manifest {
	m := inputManifest(Name, modelSHA256, Dimension)
	m.Title = "Built-in filter-bank embedder, for evaluation and tests only"
	m.Output.Name = "embedding"
	m.Detector = "yunet-2023mar"
	m.Threshold = threshold
	m.Calibration = calibration()
	return m
}

// FeatureManifest describes FeatureModel, for programs that run it.
func FeatureManifest() models.Manifest {
	sum := sha256.Sum256(FeatureModel())
	m := inputManifest("reference-features", hex.EncodeToString(sum[:]), features)
	m.Title = "Built-in filter-bank features, before the projection"
	m.Output.Name = "features"
	return m
}

func inputManifest(name, sum string, dimension int) models.Manifest {
	const mean, scale = 127.5, 1 / 127.5
	return models.Manifest{
		Name: name, Kind: models.KindEmbedder, Architecture: models.ArchEmbedding,
		File: name + ".onnx", SHA256: sum,
		License: "Apache-2.0", LicenseURL: "https://www.apache.org/licenses/LICENSE-2.0",
		Evaluation: true,
		Input: models.Input{
			Name: "input", Width: side, Height: side, Layout: "NCHW", Color: models.ColorRGB,
			Mean: [3]float32{mean, mean, mean}, Scale: [3]float32{scale, scale, scale},
		},
		Output: models.Output{Dimension: dimension},
		Batch:  models.BatchDynamic,
	}
}
