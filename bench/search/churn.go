package search

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// ChurnResult is what Churn found. What was not measured is nil.
type ChurnResult struct {
	Setting
	Probes      int `json:"probes"`
	MatedProbes int `json:"mated_probes"`
	AskedPerS   int `json:"churn_asked_per_s"`

	QuietP50MS   float64 `json:"quiet_p50_ms"`
	QuietP99MS   float64 `json:"quiet_p99_ms"`
	ChurnP50MS   float64 `json:"churn_p50_ms"`
	ChurnP99MS   float64 `json:"churn_p99_ms"`
	Ratio        float64 `json:"churn_ratio"` // of the p99
	AchievedPerS float64 `json:"churn_achieved_per_s"`
	ApplyP50MS   float64 `json:"apply_p50_ms"` // of one call, with the changes that were due
	ApplyP99MS   float64 `json:"apply_p99_ms"`
	Changes      int     `json:"changes"`
	QuietCount   int     `json:"quiet_searches"`
	ChurnCount   int     `json:"churn_searches"`
	MatedFound   float64 `json:"mated_found"`

	BytesPerTemplate *float64 `json:"bytes_per_template"`
	BytesAfterChurn  *float64 `json:"bytes_per_template_after_churn"`

	RoundFigures []ChurnRound `json:"round_figures"`
}

// ChurnRound is what one round measured.
type ChurnRound struct {
	QuietP50MS   float64 `json:"quiet_p50_ms"`
	QuietP99MS   float64 `json:"quiet_p99_ms"`
	ChurnP50MS   float64 `json:"churn_p50_ms"`
	ChurnP99MS   float64 `json:"churn_p99_ms"`
	AchievedPerS float64 `json:"churn_achieved_per_s"`
}

// MaxChurn is the most changes a second that are asked for.
const MaxChurn = 1_000_000

// Churn measures the searches of one caller in a gallery that is left alone and
// in one that changes: perSecond changes a second, inserts and removes of random
// templates by turns, so that the size stays. The changes that have become due
// are applied every millisecond in one call, as the committer applies those that
// were made durable together. Quiet and changing stretches take turns; the
// quantiles are those of all searches of a kind.
//
// The answers are compared with the reference scan before the first change and
// after the last one.
func Churn(ctx context.Context, o Options, perSecond int) (*ChurnResult, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if perSecond < 1 || perSecond > MaxChurn {
		return nil, fmt.Errorf("%w: %d changes a second; 1 to %d are possible", ErrOptions, perSecond, MaxChurn)
	}
	source := NewSource(o.Data, o.Dim, o.Seed)
	r := &ChurnResult{Setting: o.setting(source), Probes: o.Probes, MatedProbes: (o.Probes + 1) / 2, AskedPerS: perSecond}
	var unused float64
	e, growth, err := o.build(ctx, source, &unused)
	if err != nil {
		return nil, err
	}
	base, known := resident() // with the probes
	c := newChurner(e, perSecond)
	if err := c.compare(ctx, &o, r, nil); err != nil {
		return nil, err
	}
	quiet, churned, err := c.rounds(ctx, &o, r)
	if err != nil {
		return nil, err
	}
	r.QuietP50MS, r.QuietP99MS, r.QuietCount = round3(quiet.quantile(0.5)), round3(quiet.quantile(0.99)), len(quiet)
	r.ChurnP50MS, r.ChurnP99MS, r.ChurnCount = round3(churned.quantile(0.5)), round3(churned.quantile(0.99)), len(churned)
	r.Ratio = round3(churned.quantile(0.99) / quiet.quantile(0.99))
	r.AchievedPerS = round3(medianOf(r.RoundFigures, func(x ChurnRound) float64 { return x.AchievedPerS }))
	r.ApplyP50MS, r.ApplyP99MS, r.Changes = round3(c.applied.quantile(0.5)), round3(c.applied.quantile(0.99)), c.changes
	if known {
		numbers := int64(4 * cap(c.alive))
		c.due = nil
		after, _ := resident()
		r.BytesPerTemplate = rounded(float64(*growth) / float64(o.Gallery))
		r.BytesAfterChurn = rounded(float64(*growth+after-base-numbers) / float64(o.Gallery))
	}
	numbers := make([]int, len(c.alive))
	for i, n := range c.alive {
		numbers[i] = int(n)
	}
	return r, c.compare(ctx, &o, r, numbers)
}

// churner changes a gallery and knows what is in it.
type churner struct {
	*engine
	perSecond int
	alive     []uint32 // numbers of the templates that are in the gallery
	next      int      // number of the next template that comes in
	random    *rand.Rand
	due       []index.Change // prepared, not applied yet
	applied   latencies      // of each call
	changes   int
}

func newChurner(e *engine, perSecond int) *churner {
	c := &churner{engine: e, perSecond: perSecond, next: e.count, alive: make([]uint32, e.count)}
	for i := range c.alive {
		c.alive[i] = uint32(i)
	}
	g := e.source.Generator()
	g.begin(streamChurn, 0)
	c.random = g.random
	return c
}

// prepare makes the next n changes, so that making them does not take time from
// the searches. Which template a removal takes is drawn when it is applied.
func (c *churner) prepare(ctx context.Context, n int) error {
	dim := c.source.dim
	values := make([]int8, (n+1)/2*dim)
	c.due = make([]index.Change, n)
	encoders := make([]*encoder, workers())
	for w := range encoders {
		encoders[w] = c.encoder()
	}
	epoch := c.gallery.Epoch()
	return parallel(ctx, n, 64, func(worker, start, end int) error {
		for i := start; i < end; i++ {
			change := &c.due[i]
			change.Epoch = epoch + 1 + scope.Epoch(i)
			if i%2 == 1 {
				change.Removes = make([]index.Remove, 1)
				continue
			}
			insert := index.Insert{Code: code.Code{Q: values[i/2*dim : (i/2+1)*dim]}}
			insert.Subject, insert.Template = c.name(c.next + i/2)
			if err := encoders[worker].encode(&insert.Code, c.next+i/2); err != nil {
				return err
			}
			change.Inserts = []index.Insert{insert}
		}
		return nil
	})
}

// apply does the next n prepared changes in one call.
func (c *churner) apply(n int) error {
	now := c.due[:n]
	for i := range now {
		if len(now[i].Inserts) > 0 {
			c.alive = append(c.alive, uint32(c.next))
			c.next++
			continue
		}
		at, last := c.random.IntN(len(c.alive)), len(c.alive)-1
		now[i].Removes[0].Subject, now[i].Removes[0].Template = c.name(int(c.alive[at]))
		c.alive[at] = c.alive[last]
		c.alive = c.alive[:last]
	}
	began := time.Now()
	err := c.gallery.Apply(now...)
	c.applied = append(c.applied, time.Since(began))
	c.changes += n
	c.due = c.due[n:]
	return err
}

// tick is how long changes gather before they are applied in one call.
const tick = time.Millisecond

// run applies changes as they become due until stop is closed or none is left,
// and returns how many a second that were. It calls begun after its first tick.
func (c *churner) run(stop <-chan struct{}, begun func()) (float64, error) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	defer begun()
	began, before := time.Now(), c.changes
	for {
		select {
		case <-stop:
			return float64(c.changes-before) / time.Since(began).Seconds(), nil
		case <-ticker.C:
		}
		n := int(time.Since(began).Seconds()*float64(c.perSecond)) - (c.changes - before)
		if n = min(n, len(c.due)); n > 0 {
			if err := c.apply(n); err != nil {
				return 0, err
			}
		}
		begun()
		if len(c.due) == 0 {
			return float64(c.changes-before) / time.Since(began).Seconds(), nil
		}
	}
}

// rounds lets quiet and changing stretches take turns.
func (c *churner) rounds(ctx context.Context, o *Options, r *ChurnResult) (quiet, churned latencies, err error) {
	step := o.phase("measuring", 2*o.Rounds)
	if _, err := c.one(ctx, 0, min(o.Time, 200*time.Millisecond), nil); err != nil {
		return nil, nil, err
	}
	for i := range o.Rounds {
		// A quarter more than is due in the time that is asked for, since the last
		// search of a stretch ends after it.
		if err := c.prepare(ctx, int(o.Time.Seconds()*float64(c.perSecond)*5/4)+16); err != nil {
			return nil, nil, err
		}
		still, err := c.one(ctx, 31*i, o.Time, nil)
		if err != nil {
			return nil, nil, err
		}
		step()
		moving, achieved, err := c.stretch(ctx, 31*i, o.Time)
		if err != nil {
			return nil, nil, err
		}
		step()
		quiet, churned = append(quiet, still...), append(churned, moving...)
		r.RoundFigures = append(r.RoundFigures, ChurnRound{
			round3(still.quantile(0.5)), round3(still.quantile(0.99)),
			round3(moving.quantile(0.5)), round3(moving.quantile(0.99)), round3(achieved),
		})
	}
	return quiet, churned, nil
}

// stretch searches while the gallery changes, from the first changes on.
func (c *churner) stretch(ctx context.Context, from int, d time.Duration) (latencies, float64, error) {
	type outcome struct {
		perSecond float64
		err       error
	}
	stop, begun, done := make(chan struct{}), make(chan struct{}), make(chan outcome, 1)
	go func() {
		perSecond, err := c.run(stop, sync.OnceFunc(func() { close(begun) }))
		done <- outcome{perSecond, err}
	}()
	<-begun
	took, err := c.one(ctx, from, d, nil)
	close(stop)
	changes := <-done
	if err == nil {
		err = changes.err
	}
	return took, changes.perSecond, err
}

// compare searches for the probes that are to be checked and holds the answers
// against the reference scan of the templates with these numbers (nil: all that
// the gallery began with).
func (c *churner) compare(ctx context.Context, o *Options, r *ChurnResult, numbers []int) error {
	check, err := o.reference(ctx, c.engine, numbers)
	if err != nil {
		return err
	}
	if err := c.verify(ctx, check); err != nil {
		return err
	}
	r.Mismatches += check.wrong.Load()
	r.CheckedProbes, r.CheckedCount = o.Check, r.CheckedCount+check.checked.Load()
	if numbers == nil {
		r.MatedFound = found(c.enrolment, check.reference)
	}
	return nil
}
