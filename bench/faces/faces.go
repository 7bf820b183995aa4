package faces

import "github.com/menshen-io/menshen/models/align"

// Generator draws a population of synthetic people. It is immutable and safe
// for use from several goroutines.
type Generator struct{ seed uint64 }

// New returns the population of the given seed. Equal seeds give equal people.
func New(seed uint64) *Generator { return &Generator{seed: seed} }

// Identity returns person i. Any i >= 0 is a person; the population has no end.
func (g *Generator) Identity(i int) Identity { return drawIdentity(g.seed, i) }

// Variation returns the conditions of shot k of person i: an enrolment shot
// for k = 0, what a gate sees otherwise.
func (g *Generator) Variation(i, k int) Variation {
	d := newDice(g.seed+uint64(k)*0x51ed27, uint64(i)*2)
	if k == 0 {
		return enrolment(d)
	}
	return gate(d)
}

// Crop renders shot k of person i.
func (g *Generator) Crop(identity, shot int) *align.Crop {
	return g.Identity(identity).Render(g.Variation(identity, shot))
}

// Render draws one shot as an aligned 112x112 RGB crop, which the caller owns.
func (id Identity) Render(v Variation) *align.Crop {
	d := newDice(v.Seed, id.seed)
	c := &canvas{id: &id, v: &v}
	c.layout(d)
	c.draw(d)
	c.light()
	c.soften(v.Blur)
	crop := &align.Crop{Pix: make([]byte, 3*side*side)}
	c.expose(crop.Pix)
	return crop
}
