package matcher

import (
	"context"
	"time"

	"github.com/menshen-io/menshen/matcher/scour"
)

// scourRounds are the pauses before the rounds of scouring that follow a destruction:
// the first at once, the last two when Badger has let go of the buffers in which it put
// tables together. It keeps up to 8 of them, with the records that stood in the last
// tables, and drops one every 2 seconds while it writes no table.
var scourRounds = [...]time.Duration{0, 6 * time.Second, 14 * time.Second, 30 * time.Second}

// scourSoon has the memory scoured of what was just destroyed. It does not wait.
func (m *Matcher) scourSoon() {
	select {
	case m.destroyed <- struct{}{}:
	default: // somebody asked already
	}
}

// keepScouring takes what was destroyed out of freed memory, until ctx ends. What
// is destroyed during the rounds has rounds of its own after them, all together.
func (m *Matcher) keepScouring(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.destroyed:
		}
		for _, pause := range scourRounds {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			m.log.Debug("the memory is scoured of what was destroyed", "took", scour.Memory().String())
		}
	}
}
