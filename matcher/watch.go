package matcher

import (
	"math/rand/v2"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/canary"
)

// CanarySites shows the isolation canary at most limit of the scopes that can
// match, drawn by chance where there are more: whose gallery and rotation they
// use, never what is in them.
func (m *Matcher) CanarySites(limit int) []canary.Site {
	entries := m.entries()
	rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	sites := make([]canary.Site, 0, min(limit, len(entries)))
	for _, sc := range entries {
		if len(sites) == limit {
			break
		}
		if info := sc.info.Load(); sc.reachable(info) == nil && sc.gallery != nil {
			sites = append(sites, m.canarySite(sc, info))
		}
	}
	return sites
}

func (m *Matcher) canarySite(sc *scopeEntry, info *scopeInfo) canary.Site {
	listed, _ := m.index.Gallery(sc.ref)
	return canary.Site{
		Ref: sc.ref, Gallery: sc.gallery, Listed: listed, Rotation: sc.rotation,
		Threshold: min(info.settings.VerifyThreshold, info.settings.IdentifyThreshold),
		Seed: func(use func(seed *[32]byte) error) error {
			keys, err := m.keyring.Keys(sc.ref)
			if err != nil {
				return err
			}
			return keys.WithRotationSeed(use)
		},
		Gone: func() bool { return sc.currentState() == scope.Revoked },
	}
}
