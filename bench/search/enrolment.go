package search

import (
	"context"
	"fmt"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// searchTime is the time that all searches are made at.
var searchTime = time.Date(2026, 5, 1, 9, 0, 0, 0, time.UTC)

// enrolment is the templates first..first+count-1 of a source in one scope.
type enrolment struct {
	source       *Source
	ref          scope.Ref
	rotation     *code.Rotation
	first, count int
}

// newEnrolment draws the rotation of scope number n.
func newEnrolment(source *Source, n, first, count int) (*enrolment, error) {
	seed := code.RotationSeed{}
	for i := range 8 {
		seed[i], seed[8+i] = byte(mix(source.seed)>>(8*i)), byte(n>>(8*i))
	}
	rotation, err := code.NewRotation(seed, source.dim)
	if err != nil {
		return nil, err
	}
	ref := scope.Ref{Tenant: "bench", Scope: scope.ScopeID(fmt.Sprintf("scope-%d", n))}
	return &enrolment{source, ref, rotation, first, count}, nil
}

// grant permits to search the enrolment's scope.
func (e *enrolment) grant() scope.Grant {
	return scope.Mint(e.ref, scope.UseIdentify, "menshen-bench")
}

// name gives the subject and the number of template i. The ids are spread so
// that their order is not that of the rows; they have 11 bytes.
func (e *enrolment) name(i int) (scope.SubjectID, scope.TemplateID) {
	const spread, modulus = 387420489, 1_000_000_000 // without common factor
	owner := ownerOf(i)
	id := scope.SubjectID(fmt.Sprintf("v-%09d", uint64(owner)*spread%modulus))
	return id, scope.TemplateID(1 + i - owner)
}

// encoder makes codes of the enrolment. It is for one goroutine.
type encoder struct {
	*enrolment
	generator *Generator
	values    []float32 // of a template, and as much beside it to encode in
}

func (e *enrolment) encoder() *encoder {
	return &encoder{e, e.source.Generator(), make([]float32, 2*e.source.dim)}
}

// blank is a code to encode into.
func (e *encoder) blank() code.Code { return code.Code{Q: make([]int8, e.source.dim)} }

// encode writes the code of template i to c, whose Q has dim values.
func (e *encoder) encode(c *code.Code, i int) error {
	values := e.values[:e.source.dim]
	e.generator.Template(values, i)
	made, err := code.EncodeInto(c.Q, e.values, e.rotation, values)
	*c = made
	return err
}

// encodeBlock is how many templates a worker makes at a time: under 10 ms of
// work.
const encodeBlock = 512

// batch is how many templates are applied at once: 8 MiB of codes at 512-d.
const batch = 16 << 10

// fill puts the enrolment's templates into a gallery, in parts that are made
// into the same memory, so that little but the gallery remains.
func (e *enrolment) fill(ctx context.Context, g *index.Gallery, step func()) error {
	size := min(batch, e.count)
	dim := e.source.dim
	values := make([]int8, size*dim)
	inserts := make([]index.Insert, size)
	encoders := make([]*encoder, workers())
	for w := range encoders {
		encoders[w] = e.encoder()
	}
	for from := 0; from < e.count; from += size {
		n := min(size, e.count-from)
		err := parallel(ctx, n, encodeBlock, func(worker, start, end int) error {
			for i := start; i < end; i++ {
				c := code.Code{Q: values[i*dim : (i+1)*dim]}
				number := e.first + from + i
				if err := encoders[worker].encode(&c, number); err != nil {
					return err
				}
				subject, template := e.name(number)
				inserts[i] = index.Insert{Subject: subject, Template: template, Code: c}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := g.Apply(index.Change{Epoch: 1, Inserts: inserts[:n]}); err != nil {
			return err
		}
		step()
	}
	return nil
}

// batches is the number of steps that fill takes.
func (e *enrolment) batches() int { return (e.count + batch - 1) / batch }

// probe is one probe of an enrolment's scope.
type probe struct {
	values []float32 // of norm 1
	code   code.Code
	mate   int // the template that it is mated with, or -1
}

// probes makes n probes, every second one mated.
func (e *enrolment) probes(n int) ([]*probe, error) {
	generator := e.source.Generator()
	mates := e.source.Mates(n, e.first, e.count)
	out := make([]*probe, n)
	for j := range out {
		p := &probe{values: make([]float32, e.source.dim), mate: mates[j]}
		generator.Probe(p.values, e.first+j, p.mate)
		var err error
		if p.code, err = code.Encode(e.rotation, p.values); err != nil {
			return nil, err
		}
		out[j] = p
	}
	return out, nil
}

// query is the search for a probe.
func (p *probe) query(t code.Threshold) index.Query {
	return index.Query{Code: p.code, K: Top, Threshold: t, Now: searchTime}
}

// found reports whether the one who the probe is of is among the candidates.
func (p *probe) found(e *enrolment, got []index.Candidate) bool {
	subject, _ := e.name(p.mate)
	twin, _ := e.name(original(p.mate))
	for _, c := range got {
		if c.Subject == subject || c.Subject == twin {
			return true
		}
	}
	return false
}
