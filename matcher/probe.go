package matcher

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/pipeline"
	"github.com/menshen-io/menshen/models/quality"
)

// Probe is one face as a gate or an enrolment desk sends it. Exactly one field
// is set. The matcher reads the bytes until the call returns, and keeps none of them.
type Probe struct {
	// Image is a camera image, JPEG or PNG.
	Image []byte
	// CropEncoded is an aligned 112x112 JPEG or PNG.
	CropEncoded []byte
	// CropRGB is an aligned crop of 112*112*3 interleaved bytes.
	CropRGB []byte
	// Embedding was computed at the edge.
	Embedding EmbeddingProbe
}

// EmbeddingProbe is the raw output of an embedding model.
type EmbeddingProbe struct {
	// ModelID is the model that made it, "name@hash".
	ModelID string
	// Vector is dimension little-endian float32.
	Vector []byte
}

// given reports whether there is one.
func (e EmbeddingProbe) given() bool { return e.ModelID != "" || e.Vector != nil }

// DetectedFace tells where in a camera image the face is.
type DetectedFace struct {
	detect.Face
	// FacesInImage counts all faces that were found.
	FacesInImage int
}

// sighting is what the models saw of one face: an embedding, or findings that
// say why there is none.
type sighting struct {
	embedding []float32
	face      *DetectedFace     // camera images only
	findings  []quality.Finding // what makes it too poor to compare
	advice    []quality.Finding // enrolment only: what could be better
}

// usable reports whether there is an embedding to compare.
func (s sighting) usable() bool { return s.embedding != nil }

// facePolicy says which faces of a camera image are looked at.
type facePolicy int

const (
	dominantFace facePolicy = iota // the largest, when clearly the largest
	eachFace                       // all, from the largest on
	onlyFace                       // exactly one; more is an error
)

// dominance is how large the second largest face may be, as a share of the
// largest one's area, for the largest to be the person at the gate. Somebody
// one step behind (1.0 m and 1.6 m from the camera, say) has 0.39 of the area.
const dominance = 0.6

// perceive runs a probe through the models: decode, detect, align, embed. A
// picture that shows too little gives a sighting without an embedding and with
// findings, not an error; errors are for input that is malformed. The sightings
// may stand in w.
func (m *Matcher) perceive(ctx context.Context, w *workspace, sc *scopeEntry, p Probe, policy facePolicy) ([]sighting, error) {
	switch {
	case p.Embedding.given():
		embedding, err := sc.decodeEmbedding(w.embedding, p.Embedding)
		return w.alone(sighting{embedding: embedding}), err
	case m.model.ID != sc.modelID:
		return nil, fmt.Errorf("%w: the scope's templates are of model %s and the server runs %s; send embeddings of the scope's model, or enrol into a new scope",
			ErrModelMismatch, sc.modelID, m.model.ID)
	case p.Image != nil:
		return m.perceiveImage(ctx, p.Image, policy)
	case p.CropEncoded != nil:
		img, err := m.perception.Decode(ctx, p.CropEncoded)
		if err != nil {
			return nil, err
		}
		crop, err := align.CropFromImage(img)
		if err != nil {
			return nil, err
		}
		return m.perceiveCrop(ctx, crop, policy)
	case p.CropRGB != nil:
		crop, err := align.CropFromRGB(p.CropRGB)
		if err != nil {
			return nil, err
		}
		return m.perceiveCrop(ctx, crop, policy)
	}
	return nil, fmt.Errorf("%w: send an image, a crop or an embedding", ErrNoProbe)
}

func (m *Matcher) perceiveImage(ctx context.Context, data []byte, policy facePolicy) ([]sighting, error) {
	scene, err := m.perception.Observe(ctx, data)
	if err != nil {
		return nil, err
	}
	defer scene.Release()
	if len(scene.Faces) == 0 {
		if policy == onlyFace {
			return nil, fmt.Errorf("%w: send a picture that shows the face from the front", ErrNoFace)
		}
		return []sighting{{findings: []quality.Finding{quality.NoFace}}}, nil
	}
	bySize := largestFirst(scene.Faces)
	switch policy {
	case onlyFace:
		if n := len(scene.Faces); n > 1 {
			return nil, fmt.Errorf("%w: the picture shows %d; send one that shows the one person", ErrManyFaces, n)
		}
	case dominantFace:
		if _, ambiguous := quality.Dominant(scene.Faces, dominance); ambiguous {
			return []sighting{{face: seen(scene, bySize[0]), findings: []quality.Finding{quality.ManyFaces}}}, nil
		}
		bySize = bySize[:1]
	case eachFace:
		bySize = bySize[:min(len(bySize), m.maxFaces)]
	}
	sightings := make([]sighting, 0, len(bySize))
	for _, i := range bySize {
		s, err := m.perceiveFace(ctx, scene, i, policy)
		if err != nil {
			return nil, err
		}
		sightings = append(sightings, s)
	}
	return sightings, nil
}

// perceiveFace aligns and embeds one face of a scene, unless its quality is too
// low to compare.
func (m *Matcher) perceiveFace(ctx context.Context, scene *pipeline.Scene, i int, policy facePolicy) (sighting, error) {
	s := sighting{face: seen(scene, i)}
	crop, err := m.perception.Crop(ctx, scene, i)
	if err != nil {
		return sighting{}, err
	}
	s.findings = quality.Assess(scene.Image, scene.Faces, i, crop, quality.DefaultLimits()).Findings
	if len(s.findings) > 0 {
		return s, nil
	}
	if policy == onlyFace {
		s.advice = quality.Assess(scene.Image, scene.Faces, i, crop, quality.EnrollmentLimits()).Findings
	}
	s.embedding, err = m.perception.Embed(ctx, crop)
	return s, err
}

// perceiveCrop embeds a crop that was aligned elsewhere.
func (m *Matcher) perceiveCrop(ctx context.Context, crop *align.Crop, policy facePolicy) ([]sighting, error) {
	s := sighting{findings: quality.AssessCrop(crop, quality.DefaultLimits()).Findings}
	if len(s.findings) > 0 {
		return []sighting{s}, nil
	}
	if policy == onlyFace {
		s.advice = quality.AssessCrop(crop, quality.EnrollmentLimits()).Findings
	}
	var err error
	s.embedding, err = m.perception.Embed(ctx, crop)
	return []sighting{s}, err
}

// largestFirst lists the faces' indices from the largest box to the smallest.
func largestFirst(faces []detect.Face) []int {
	order := make([]int, len(faces))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := faces[a].Box, faces[b].Box
		return cmp.Compare(y.W*y.H, x.W*x.H)
	})
	return order
}

func seen(scene *pipeline.Scene, i int) *DetectedFace {
	return &DetectedFace{Face: scene.Faces[i], FacesInImage: len(scene.Faces)}
}

// decodeEmbedding reads an embedding that was computed at the edge into dst, of
// the scope's dimension. Its values are checked where it becomes a code.
func (sc *scopeEntry) decodeEmbedding(dst []float32, p EmbeddingProbe) ([]float32, error) {
	if p.ModelID != sc.modelID {
		return nil, fmt.Errorf("%w: the embedding says it is of model %q and the scope's templates are of %s", ErrModelMismatch, p.ModelID, sc.modelID)
	}
	if len(p.Vector) != sc.dim*4 {
		return nil, fmt.Errorf("%w: it has %d bytes; model %s needs %d (%d little-endian float32)", ErrVectorLength, len(p.Vector), sc.modelID, sc.dim*4, sc.dim)
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(p.Vector[i*4:]))
	}
	return dst, nil
}
