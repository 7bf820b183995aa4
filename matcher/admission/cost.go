package admission

import "time"

// Op is what is done with a probe.
type Op uint8

const (
	Verify Op = iota
	Identify
	Enroll
	ops
)

// Probe is what a probe is.
type Probe uint8

const (
	Embedding Probe = iota
	Crop            // pixels
	EncodedCrop
	Image
	probes
)

// Work describes a call by what its cost depends on.
type Work struct {
	Op    Op
	Probe Probe
	// Count is the number of probes; 0 means 1.
	Count int
	// Pixels of an image, as its header says.
	Pixels int
	// Rows of the gallery that an Identify searches.
	Rows int
	// Shared is whether the search is done by the workers of the index.
	Shared bool
}

// cell is a kind of work: what is learned is learned for it.
type cell uint8

func (w Work) cell() cell { return cell(w.Op)*cell(probes) + cell(w.Probe) }

func (w Work) weight() int64 {
	switch {
	case w.Probe == Crop || w.Probe == EncodedCrop:
		return seeing
	case w.Shared && w.Probe == Embedding:
		return shared
	}
	return core
}

// firstCall is what a call of an unknown tenant is thought to cost.
const firstCall = time.Millisecond

// What work costs before anything was learned, in ns of one core. Measured on
// 4 cores of a 2.5 GHz Xeon with MobileFaceNet and YuNet; a factor for each
// kind of work follows the models and the machine that are there.
const (
	embeddingCost = 10_000    // rotate, quantise, compare
	cropCost      = 1_600_000 // one run of the embedder
	encodedCost   = 600_000   // decoding 112x112
	imageCost     = 5_500_000 // one run of the detector at 320x320
	pixelCost     = 12        // decoding and scaling
	rowCost       = 5         // searching one of 512 values
)

// prior is what the work is thought to cost before anything was learned, ns.
func (w Work) prior() int64 {
	cost := int64(embeddingCost)
	switch w.Probe {
	case Image:
		cost += imageCost + cropCost + pixelCost*int64(w.Pixels)
	case EncodedCrop:
		cost += encodedCost + cropCost
	case Crop:
		cost += cropCost
	}
	return cost*int64(max(1, w.Count)) + rowCost*int64(w.Rows)
}

// costs is what was learned: for each kind of work how much longer than by its
// default it takes, and how long a service time is over all.
type costs struct {
	factor [int(ops) * int(probes)]float64
	// The mean service time that core time is spent in: calls of 10 us between
	// calls of 10 ms do not make the latter's wait look long.
	sum, squares float64
}

func newCosts() costs {
	var c costs
	for i := range c.factor {
		c.factor[i] = 1
	}
	return c
}

// Learning follows the last 30 calls of a kind or so. One that was held up must
// not close the door on the others, so a sample counts within bounds.
const (
	learning     = 1.0 / 32
	leastFactor  = 1.0 / 256
	mostFactor   = 64
	mostSurprise = 8
)

func (c *costs) estimate(k cell, prior int64) int64 {
	return max(1, int64(float64(prior)*c.factor[k]))
}

// learn takes note that work of a kind took so much core time.
func (c *costs) learn(k cell, prior, took int64) {
	seen := min(float64(took)/float64(prior), c.factor[k]*mostSurprise, mostFactor)
	c.factor[k] = max(c.factor[k]+(seen-c.factor[k])*learning, leastFactor)
	x := c.factor[k] * float64(prior)
	c.sum += (x - c.sum) * learning
	c.squares += (x*x - c.squares) * learning
}

// service is the mean service time, weighted by core time, ns.
func (c *costs) service() float64 {
	if c.sum == 0 {
		return 0
	}
	return c.squares / c.sum
}
