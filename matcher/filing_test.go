package matcher

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
)

// levels is a log of which the levels alone are kept.
type levels []slog.Level

func (l *levels) Enabled(context.Context, slog.Level) bool { return true }
func (l *levels) Handle(_ context.Context, r slog.Record) error {
	*l = append(*l, r.Level)
	return nil
}
func (l *levels) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *levels) WithGroup(string) slog.Handler      { return l }

// A threshold is crossed at its number exactly, told once, and told again only
// after the count has been well below it.
func TestFilingThresholds(t *testing.T) {
	var log levels
	var acts []string
	f := newFiling(slog.New(&log), func(ref scope.Ref, act string) { acts = append(acts, string(ref.Tenant)+" "+act) })
	defer func() {
		if len(acts) == 0 || len(acts) != len(log) || !strings.Contains(acts[0], " FilingApproaching") {
			t.Errorf("%d lines in the log, and the acts %q", len(log), acts)
		}
	}()
	f.start()
	for i, step := range []struct {
		subjects int
		state    FilingState
		told     int // lines in the log so far
		level    slog.Level
	}{
		{1, FilingBelow, 0, 0},
		{79_999, FilingBelow, 0, 0},
		{80_000, FilingApproaching, 1, slog.LevelWarn},
		{79_999, FilingBelow, 1, slog.LevelWarn},
		{80_001, FilingApproaching, 1, slog.LevelWarn},
		{79_000, FilingBelow, 1, slog.LevelWarn},
		{80_000, FilingApproaching, 1, slog.LevelWarn}, // 79,000 is not well below
		{78_999, FilingBelow, 1, slog.LevelWarn},
		{80_000, FilingApproaching, 2, slog.LevelWarn},
		{94_999, FilingApproaching, 2, slog.LevelWarn},
		{95_000, FilingNear, 3, slog.LevelWarn},
		{99_999, FilingNear, 3, slog.LevelWarn},
		{100_000, FilingReached, 4, slog.LevelError},
		{99_999, FilingNear, 4, slog.LevelError},
		{100_000, FilingReached, 4, slog.LevelError},
		{98_999, FilingNear, 4, slog.LevelError},
		{100_000, FilingReached, 5, slog.LevelError},
		{0, FilingBelow, 5, slog.LevelError},
		{250_000, FilingReached, 6, slog.LevelError}, // over all three at once
	} {
		f.mu.Lock()
		f.add("fair", step.subjects-f.tallyOf("fair"))
		f.mu.Unlock()
		if got := f.of("fair"); got.Subjects != step.subjects || got.State != step.state {
			t.Errorf("step %d: %+v, want %d in state %d", i, got, step.subjects, step.state)
		}
		if len(log) != step.told || step.told > 0 && log[len(log)-1] != step.level {
			t.Errorf("step %d, %d subjects: the log has %v, want %d lines, the last %v", i, step.subjects, log, step.told, step.level)
		}
	}
	if got := f.of("gym"); got != (Filing{}) {
		t.Errorf("another tenant has %+v", got)
	}
}

func (f *filing) tallyOf(t scope.TenantID) int {
	if c := f.tenants[t]; c != nil {
		return c.subjects
	}
	return 0
}

// What is loaded is told once, when everything is loaded, and is no act: it was one
// when the threshold was crossed.
func TestFilingAtTheStart(t *testing.T) {
	var log levels
	f := newFiling(slog.New(&log), func(_ scope.Ref, act string) { t.Errorf("%s is written again", act) })
	for range 10 {
		f.add("fair", 9_600)
		f.add("gym", 100)
	}
	if len(log) != 0 {
		t.Errorf("%d lines while loading", len(log))
	}
	f.start()
	if len(log) != 1 || log[0] != slog.LevelWarn {
		t.Errorf("at the start: %v, want one warning", log)
	}
	f.add("fair", 10)
	if len(log) != 1 {
		t.Errorf("after the start: %v, want no second line", log)
	}
}

// The meter follows every way in and out.
func TestFilingFollowsChanges(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	hallB, north := scope.Ref{Tenant: "fair", Scope: "hall-b"}, scope.Ref{Tenant: "gym", Scope: "north"}
	for _, ref := range []scope.Ref{hallA, hallB, north} {
		w.create(ref)
	}
	want := func(when string, fair, gym int) {
		t.Helper()
		if f, g := w.Filing("fair").Subjects, w.Filing("gym").Subjects; f != fair || g != gym {
			t.Errorf("%s: %d and %d, want %d and %d", when, f, g, fair, gym)
		}
	}
	want("empty", 0, 0)
	for i := range 4 {
		w.enroll(hallA, subjectID(i), vectorOf(uint16(i), 0), vectorOf(uint16(i), 1))
		w.enroll(hallB, subjectID(i), vectorOf(uint16(i), 0))
	}
	w.enroll(north, "anna", vectorOf(1, 0))
	want("enrolled", 8, 1)
	_, err := w.DeleteTemplate(ctx, grant(hallA), subjectID(0), 1, request())
	must(t, err)
	want("one of two templates deleted", 8, 1)
	_, err = w.DeleteTemplate(ctx, grant(hallA), subjectID(0), 2, request())
	must(t, err)
	_, err = w.WithdrawConsent(ctx, grant(hallA), subjectID(1), request())
	must(t, err)
	want("erased", 6, 1)
	_, err = w.Enroll(ctx, grant(north), Enrollment{Subject: "ben", Consent: w.consent(), Probes: []Probe{vectorOf(2, 0)}, ExpireTime: w.now().Add(time.Minute)})
	must(t, err)
	want("enrolled for a minute", 6, 2)
	w.pass(time.Minute)
	_, err = w.sweep(ctx)
	must(t, err)
	want("swept", 6, 1)
	w.restart()
	want("restarted", 6, 1)
	_, err = w.RevokeScope(ctx, grant(hallB), request())
	must(t, err)
	want("revoked", 2, 1)
	w.restart()
	want("restarted again", 2, 1)
}
