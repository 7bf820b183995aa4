package matcher

import (
	"math/rand/v2"
	"slices"
)

// workspace is memory for one call on its way from the probe to the decision.
// It is pooled, and wiped before it is given back: what stood in it was
// biometric.
type workspace struct {
	embedding []float32 // as it came
	values    []float32 // two of it, to encode in
	codes     []int8    // the probe's and the decoy's
	stream    rand.ChaCha8
	one       [1]sighting // the list of a probe that shows one face
}

// workspace gets memory for probes of dim values.
func (m *Matcher) workspace(dim int) *workspace {
	w, _ := m.workspaces.Get().(*workspace)
	if w == nil {
		w = new(workspace)
	}
	w.embedding = slices.Grow(w.embedding[:0], dim)[:dim]
	w.values = slices.Grow(w.values[:0], 2*dim)[:2*dim]
	w.codes = slices.Grow(w.codes[:0], 2*dim)[:2*dim]
	return w
}

// giveBack wipes the workspace and keeps it for another call. Nothing of it may
// be used afterwards.
func (m *Matcher) giveBack(w *workspace) {
	clear(w.embedding)
	clear(w.values)
	clear(w.codes)
	w.stream = rand.ChaCha8{}
	w.one[0] = sighting{}
	m.workspaces.Put(w)
}

// probe and decoy are where the codes go.
func (w *workspace) probe() []int8 { return w.codes[:len(w.codes)/2] }
func (w *workspace) decoy() []int8 { return w.codes[len(w.codes)/2:] }

// alone is a list of one sighting.
func (w *workspace) alone(s sighting) []sighting {
	w.one[0] = s
	return w.one[:]
}
