package reference

import "fmt"

const (
	side = 112 // pixels of the input's edge
	// Dimension is the length of the embedding.
	Dimension = 512

	contrastSigma = 6    // pixels: window of the local contrast normalisation
	contrastFloor = 0.04 // of the input's range -1..1: what counts as no contrast

	orientations = 8
	gaborSigma   = 0.5 // of a wavelength: envelope of the filters
	gaborCut     = 2.2 // standard deviations: where a kernel ends
	gaborNorm    = 3
	energyFloor  = 1e-4

	cell      = 7                                  // rows and columns of a 56x56 response map in one step of the grid
	window    = 2 * cell                           // of the averaging, so that neighbours overlap by half
	gridEdge  = (side/2-window)/cell + 1           // 7
	perScale  = orientations * gridEdge * gridEdge // 392
	numScales = 4
	// features is the length of the vector before the projection.
	features = numScales * perScale
)

// scale is one ring of the filter bank.
type scale struct {
	name       string
	wavelength float64 // in samples of the image that it filters
	half       bool    // filters the image at half size, at every sample; otherwise at full size, at every second one
}

// scales returns wavelengths of 6, 9, 13.5 and 20 pixels of the crop.
func scales() [numScales]scale {
	return [numScales]scale{
		{"fine", 6, false}, {"medium", 4.5, true}, {"coarse", 6.75, true}, {"broad", 10, true},
	}
}

// luma is the weight of red, green and blue in lightness (ITU-R BT.601).
func luma() []float32 { return []float32{onGrid(0.299), onGrid(0.587), onGrid(0.114)} }

// addFeatures appends the filter-bank network and returns the name of its
// output, N x features, ordered scale, orientation, row, column.
func addFeatures(g *graph) string {
	g.inputs = append(g.inputs, valueInfo("input", 3, side, side))
	grey := g.node("Conv", "grey", []string{"input", g.floats("luma", luma(), 1, 3, 1, 1)})
	even := addContrast(g, grey)
	half := g.node("AveragePool", "half", []string{even}, intsAttr("kernel_shape", 2, 2), intsAttr("strides", 2, 2))

	floor := g.floats("energy_floor", []float32{onGrid(energyFloor)}, 1)
	pairs := g.floats("pairs", quadraturePairs(), orientations, 2*orientations, 1, 1)
	var parts []string
	for _, s := range scales() {
		src, stride := even, int64(2)
		if s.half {
			src, stride = half, 1
		}
		bank, edge := gaborBank(s.wavelength, orientations)
		n, r := int64(edge), int64(edge/2)
		kernel := g.floats(s.name+"_bank", bank, 2*orientations, 1, n, n)
		y := g.node("Conv", s.name+"_response", []string{src, kernel}, intsAttr("pads", r, r, r, r), intsAttr("strides", stride, stride))
		y = g.node("Mul", s.name+"_square", []string{y, y})
		y = g.node("Conv", s.name+"_energy", []string{y, pairs})
		y = g.node("Add", s.name+"_floored", []string{y, floor})
		y = g.node("Sqrt", s.name+"_magnitude", []string{y})
		y = g.node("Sqrt", s.name+"_compressed", []string{y})
		y = g.node("AveragePool", s.name+"_grid", []string{y}, intsAttr("kernel_shape", window, window), intsAttr("strides", cell, cell))
		parts = append(parts, g.node("Flatten", s.name+"_features", []string{y}, intAttr("axis", 1)))
	}
	return g.node("Concat", "features", parts, intAttr("axis", 1))
}

// addContrast subtracts the local mean and divides by the local standard
// deviation, both over a Gaussian window: light that changes slowly over the
// face, exposure and skin tone drop out.
func addContrast(g *graph, x string) string {
	k := gaussian(contrastSigma)
	n := int64(len(k))
	across, down := g.floats("window_row", k, 1, 1, 1, n), g.floats("window_column", k, 1, 1, n, 1)
	blur := func(name, x string) string {
		x = g.node("Conv", name+"_rows", []string{x, across}, intsAttr("pads", 0, n/2, 0, n/2))
		return g.node("Conv", name, []string{x, down}, intsAttr("pads", n/2, 0, n/2, 0))
	}
	d := g.node("Sub", "detail", []string{x, blur("local_mean", x)})
	v := blur("local_variance", g.node("Mul", "detail_square", []string{d, d}))
	v = g.node("Sqrt", "local_contrast", []string{v})
	v = g.node("Add", "local_floor", []string{v, g.floats("contrast_floor", []float32{onGrid(contrastFloor)}, 1)})
	return g.node("Div", "evened", []string{d, v})
}

// quadraturePairs adds the squares of the even and odd filter of each
// orientation: a 1x1 convolution from 2*orientations to orientations channels.
func quadraturePairs() []float32 {
	w := make([]float32, orientations*2*orientations)
	for k := range orientations {
		w[k*2*orientations+k] = 1
		w[k*2*orientations+orientations+k] = 1
	}
	return w
}

// addProjection appends (x - mean) * weights and names the result "embedding".
// The int8 weights stay int8 in the file; ONNX Runtime widens them once, when it
// loads the model.
func addProjection(g *graph, x string, p *projection) {
	x = g.node("Sub", "centred", []string{x, g.floats("mean", p.mean, features)})
	w := g.node("Cast", "weights", []string{g.int8s("weights_int8", p.weights, features, Dimension)}, intAttr("to", elemFloat))
	x = g.node("MatMul", "projected", []string{x, w})
	g.node("Mul", "embedding", []string{x, g.floats("scale", p.scale, Dimension)})
	g.outputs = append(g.outputs, valueInfo("embedding", Dimension))
}

// FeatureModel returns the network without its projection, as ONNX bytes: input
// as Model, output "features" of N x FeatureLength. Fit needs its outputs.
func FeatureModel() []byte {
	g := &graph{name: "menshen-reference-features"}
	out := addFeatures(g)
	g.outputs = append(g.outputs, valueInfo(out, features))
	return g.model(producer, fmt.Sprintf("Filter-bank features, %d values a crop, before the projection.", features))
}
