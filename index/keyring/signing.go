package keyring

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/menshen-io/menshen/index/scope"
)

// Signing is the key that the server signs receipts and checkpoints with.
type Signing struct {
	// Seed of the Ed25519 key (RFC 8032). It is a secret; overwrite it when done.
	Seed [ed25519.SeedSize]byte
	// Drawn is when it came into use.
	Drawn time.Time
	// Retired are the public keys before it, the oldest first, for reading what
	// was signed with them. Their seeds are gone.
	Retired [][ed25519.PublicKeySize]byte
}

// newSigning draws a signing key. The one before goes to the retired ones.
func newSigning(before *signingContent) signingContent {
	s := signingContent{drawn: time.Now().Unix()}
	if before != nil {
		public := ed25519.NewKeyFromSeed(before.seed[:]).Public().(ed25519.PublicKey)
		s.retired = append(before.retired, [keyLen]byte(public))
	}
	rand.Read(s.seed[:])
	return s
}

// Signing returns the signing key. Error: ErrClosed.
func (k *Keyring) Signing() (Signing, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return Signing{}, ErrClosed
	}
	s := k.state.signing
	return Signing{Seed: s.seed, Drawn: time.Unix(s.drawn, 0).UTC(), Retired: append([][keyLen]byte(nil), s.retired...)}, nil
}

// RotateSigning draws a new signing key. What was signed before stays
// verifiable: the public key is kept. Errors: ErrClosed, that of the file system.
func (k *Keyring) RotateSigning() error {
	k.write.Lock()
	defer k.write.Unlock()
	return k.change(nil, func(s *state) error {
		s.signing = newSigning(&s.signing)
		return nil
	})
}

// Period numbers the days of UTC from 1970-01-01 on. Pseudonyms in logs change
// with each.
type Period uint32

// PeriodOf is the period of an instant.
func PeriodOf(at time.Time) Period { return Period(at.Unix() / 86400) }

// today is the first period of a new tenant: the one before the present, since
// clocks differ.
func today() uint32 { return uint32(PeriodOf(time.Now()) - 1) }

// maxPeriods bounds how far ahead of the oldest period a key is computed: a
// hundred years.
const maxPeriods = 36525

// Pseudonyms returns the key that a tenant's subjects are given pseudonyms with
// in one period. Keys of later periods are computed from those of earlier ones,
// and not the other way round. Errors: ErrNoKey for a tenant that never had a
// scope, ErrForgotten for a period before the oldest that is kept, ErrClosed.
func (k *Keyring) Pseudonyms(tenant scope.TenantID, p Period) (key [32]byte, err error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return key, ErrClosed
	}
	t, ok := k.state.tenants[tenant]
	if !ok {
		return key, fmt.Errorf("%w: tenant %s", ErrNoKey, tenant)
	}
	if t, err = t.at(p); err != nil {
		return key, err
	}
	return derive(t.chain[:], nil, labelNames), nil
}

// at moves the chain of pseudonym keys forward to a period.
func (t tenantContent) at(p Period) (tenantContent, error) {
	if uint32(p) < t.period {
		return t, ErrForgotten
	}
	if uint32(p)-t.period > maxPeriods {
		return t, fmt.Errorf("%w: it lies more than a hundred years ahead; set the clock", ErrForgotten)
	}
	for ; t.period < uint32(p); t.period++ {
		t.chain = derive(t.chain[:], nil, labelPeriod)
	}
	return t, nil
}

// ForgetPseudonyms destroys the keys of all periods before one, for all
// tenants, so that nobody can link pseudonyms of those periods to subjects any
// more. The root key moves on as for Destroy. Errors: as Destroy's.
func (k *Keyring) ForgetPseudonyms(before Period) error {
	k.write.Lock()
	defer k.write.Unlock()
	s, err := k.snapshot()
	if err != nil {
		return err
	}
	stale := false
	for _, t := range s.tenants {
		stale = stale || t.period < uint32(before)
	}
	if !stale {
		return nil
	}
	return k.change(generation.next, func(s *state) error {
		for id, t := range s.tenants {
			if t.period >= uint32(before) {
				continue
			}
			t, err := t.at(before)
			if err != nil {
				return err
			}
			s.tenants[id] = t
		}
		return nil
	})
}
