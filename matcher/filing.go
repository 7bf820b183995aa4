package matcher

import (
	"log/slog"
	"sync"

	"github.com/menshen-io/menshen/index/scope"
)

// FilingState tells how near a tenant is to the number of people from which on
// it must file with the authority.
type FilingState uint8

// The states, by the number of people.
const (
	FilingBelow       FilingState = iota // fewer than 80,000
	FilingApproaching                    // 80,000 or more
	FilingNear                           // 95,000 or more
	FilingReached                        // 100,000 or more: to be filed within 30 working days
)

// filingFrom is the number of people from which on each state holds. The last is
// that of article 15 of China's measures on facial recognition of 2025; the
// others leave months and weeks to prepare for it.
var filingFrom = [...]int{FilingBelow: 0, FilingApproaching: 80_000, FilingNear: 95_000, FilingReached: 100_000}

// filingSlack is how far the number must fall below a threshold before crossing
// it again is news: people come and go all day.
const filingSlack = 1_000

// filingStateOf is the state at a number of people.
func filingStateOf(n int) (s FilingState) {
	for state, from := range filingFrom {
		if n >= from {
			s = FilingState(state)
		}
	}
	return s
}

// Filing is a tenant's count of people.
type Filing struct {
	// Subjects are those of all scopes of the tenant, expired ones that are not
	// erased yet included. Somebody who is enrolled in two scopes counts twice:
	// that they are one person cannot be known. Scopes whose records are damaged
	// are not counted.
	Subjects int
	State    FilingState
}

// Filing tells how many people a tenant keeps. It takes a lock for a map lookup.
func (m *Matcher) Filing(t scope.TenantID) Filing { return m.filing.of(t) }

// filing counts the subjects of each tenant as they change, and tells the log
// when a count crosses a threshold: once, at the start too. Safe for concurrent
// use.
type filing struct {
	log  *slog.Logger
	acts func(scope.Ref, string)

	mu      sync.Mutex
	tenants map[scope.TenantID]*tally
	started bool // nothing is told while scopes are loaded
}

// tally is the count of one tenant.
type tally struct {
	subjects int
	told     FilingState // what the log knows
}

func newFiling(log *slog.Logger, acts func(scope.Ref, string)) *filing {
	return &filing{log: log, acts: acts, tenants: make(map[scope.TenantID]*tally)}
}

// of is a tenant's count.
func (f *filing) of(t scope.TenantID) Filing {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.tenants[t]; c != nil {
		return Filing{Subjects: c.subjects, State: filingStateOf(c.subjects)}
	}
	return Filing{}
}

// count brings the tenant's count up to date after a scope's gallery changed or
// was dropped. The gallery is read under the lock, so that the last to come
// leaves the latest number.
func (f *filing) count(sc *scopeEntry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := 0
	if sc.gallery != nil {
		now = sc.gallery.Subjects()
	}
	f.add(sc.ref.Tenant, now-sc.counted)
	sc.counted = now
}

// add changes a tenant's count; mu is held.
func (f *filing) add(t scope.TenantID, delta int) {
	if delta == 0 {
		return
	}
	c := f.tenants[t]
	if c == nil {
		c = &tally{}
		f.tenants[t] = c
	}
	c.subjects += delta
	if f.started {
		f.tell(t, c)
	}
}

// start tells the log where the tenants stand; from then on every crossing is told,
// and is an act. Those from before the start were acts when they happened.
func (f *filing) start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for t, c := range f.tenants {
		f.tell(t, c)
	}
	f.started = true
}

// tell logs a threshold that was crossed upwards. One that was left well behind
// counts as not crossed.
func (f *filing) tell(t scope.TenantID, c *tally) {
	for c.told > FilingBelow && c.subjects < filingFrom[c.told]-filingSlack {
		c.told--
	}
	state := filingStateOf(c.subjects)
	if state <= c.told {
		return
	}
	c.told = state
	if f.started {
		f.acts(scope.Ref{Tenant: t}, [...]string{FilingApproaching: "FilingApproaching", FilingNear: "FilingNear", FilingReached: "FilingReached"}[state])
	}
	attrs := []any{"tenant", string(t), "subjects", c.subjects, "threshold", filingFrom[state]}
	if state == FilingReached {
		f.log.Error("a tenant keeps the faces of as many people as must be filed with the authority within 30 working days; the duty stays when the number falls", attrs...)
		return
	}
	f.log.Warn("a tenant comes near to the 100,000 people from which on it must file with the authority: prepare the filing, or erase who is not needed", attrs...)
}
