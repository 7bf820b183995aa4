package demo

import (
	"context"
	"fmt"
	"math"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
)

// Scores summarises a set of scores.
type Scores struct {
	Mean float64 `json:"mean"`
	Min  float64 `json:"min"`
	Max  float64 `json:"max"`
}

// Codes compares template codes inside a scope and across two scopes.
type Codes struct {
	Faces     int     `json:"faces"`
	Threshold float64 `json:"threshold"`
	Same      Scores  `json:"same_face_in_scope"`      // the enrolled face and a gate's shot of it, both at A
	Strangers Scores  `json:"strangers_in_scope"`      // two people, both at A
	Across    Scores  `json:"same_face_across_scopes"` // one and the same embedding, at A and at B
}

// compareCodes encodes the same embeddings under the real secret rotations of
// both scopes and compares the codes.
func (s *show) compareCodes(ctx context.Context) error {
	n := min(shownAgain, s.opt.Visitors)
	s.head("The codes themselves: %d faces, each encoded under the secret rotation of both halls", n)
	var rotations [2]*code.Rotation
	for i, h := range []*hall{s.fair.a, s.fair.b} {
		seed, err := s.target.RotationSeed(h.ref)
		if err != nil {
			return fmt.Errorf("rotation of %s: %w", h.name, err)
		}
		sample, err := s.target.Embed(ctx, s.album.crop(shot{0, enrollmentShot}, true))
		if err != nil {
			return err
		}
		if rotations[i], err = code.NewRotation(seed, len(sample)); err != nil {
			return err
		}
	}
	atA, atB, gateA, err := s.encodeAll(ctx, rotations[0], rotations[1], n)
	if err != nil {
		return err
	}
	c := Codes{Faces: n}
	var same, strangers, across []code.Score
	for i := range n {
		same = append(same, compare(atA[i], gateA[i]))
		across = append(across, compare(atA[i], atB[i]))
		strangers = append(strangers, compare(atA[i], gateA[(i+1)%n]))
	}
	c.Same, c.Strangers, c.Across = summarise(same), summarise(strangers), summarise(across)
	if c.Threshold, err = s.threshold(ctx); err != nil {
		return err
	}
	s.report.Codes = c
	s.say("  same face, both at hall A:        mean %.3f, from %.3f to %.3f (threshold %.3f)", c.Same.Mean, c.Same.Min, c.Same.Max, c.Threshold)
	s.say("  two people, both at hall A:       mean %.3f, from %.3f to %.3f", c.Strangers.Mean, c.Strangers.Min, c.Strangers.Max)
	s.say("  the same embedding at A and at B: mean %.3f, from %.3f to %.3f", c.Across.Mean, c.Across.Min, c.Across.Max)
	s.claim("across scopes the same face scores like nobody",
		fmt.Sprintf("mean %.3f, largest %.3f over %d faces (at home %.3f)", c.Across.Mean, c.Across.Max, n, c.Same.Mean),
		math.Abs(c.Across.Mean) <= wantUnlinked && c.Across.Max < c.Threshold)
	return nil
}

// encodeAll embeds n faces: as enrolled under both rotations, and a gate's shot
// under the first.
func (s *show) encodeAll(ctx context.Context, rotA, rotB *code.Rotation, n int) (atA, atB, gateA []code.Code, err error) {
	atA, atB, gateA = make([]code.Code, n), make([]code.Code, n), make([]code.Code, n)
	err = parallel(ctx, n, func(i int) error {
		enrolled, err := s.target.Embed(ctx, s.album.crop(shot{i, enrollmentShot}, true))
		if err != nil {
			return err
		}
		seen, err := s.target.Embed(ctx, s.album.crop(shot{i, gateShot}, true))
		if err != nil {
			return err
		}
		if atA[i], err = code.Encode(rotA, enrolled); err != nil {
			return err
		}
		if atB[i], err = code.Encode(rotB, enrolled); err != nil {
			return err
		}
		gateA[i], err = code.Encode(rotA, seen)
		return err
	})
	return atA, atB, gateA, err
}

func compare(a, b code.Code) code.Score {
	return code.Compare(kernel.Dot(a.Q, b.Q), a.Norm2, b.Norm2)
}

func summarise(scores []code.Score) Scores {
	out := Scores{Min: math.Inf(1), Max: math.Inf(-1)}
	for _, s := range scores {
		out.Mean += float64(s) / float64(len(scores))
		out.Min = min(out.Min, float64(s))
		out.Max = max(out.Max, float64(s))
	}
	return out
}
