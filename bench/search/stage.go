package search

import (
	"context"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
)

// Stage is the search as one stage of an identification: a filled gallery that
// embeddings are looked up in. Safe for concurrent use.
type Stage struct {
	enrolled  *enrolment
	index     *index.Index
	gallery   *index.Gallery
	threshold code.Threshold
}

// NewStage fills a gallery of size synthetic templates (Spectrum). Close it.
func NewStage(ctx context.Context, size, dim int, seed uint64, threshold float64) (*Stage, error) {
	enrolled, err := newEnrolment(NewSource(Spectrum, dim, seed), 0, 0, size)
	if err != nil {
		return nil, err
	}
	s := &Stage{enrolled: enrolled, index: index.New(), threshold: code.Threshold(threshold)}
	if s.gallery, err = s.index.Create(enrolled.ref, dim); err != nil {
		s.index.Close()
		return nil, err
	}
	if err := enrolled.fill(ctx, s.gallery, func() {}); err != nil {
		s.index.Close()
		return nil, err
	}
	return s, nil
}

// Identify turns and quantises an embedding and searches for the best candidate.
func (s *Stage) Identify(ctx context.Context, embedding []float32) error {
	c, err := code.Encode(s.enrolled.rotation, embedding)
	if err != nil {
		return err
	}
	_, err = s.gallery.Identify(ctx, s.enrolled.grant(), index.Query{Code: c, K: 1, Threshold: s.threshold, Now: searchTime})
	return err
}

// Close frees the gallery.
func (s *Stage) Close() { s.index.Close() }
