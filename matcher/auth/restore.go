package auth

import (
	"time"

	"github.com/menshen-io/menshen/index/store"
)

// Restored decides what becomes of a record when a backup is restored. A backup
// knows nothing of revocations after it, so every credential comes back revoked
// at the time now, but for those that keep names. Other records are kept as they
// are. revoked reports that a live credential was revoked. ErrRecord.
func Restored(r store.Record, now time.Time, keep func(store.Key) bool) (value []byte, revoked bool, err error) {
	if r.Key.Kind != store.KindCredential {
		return r.Value, false, nil
	}
	e, err := decodeCredential(r.Key, r.Value)
	if err != nil {
		return nil, false, err
	}
	if !e.RevokeTime.IsZero() || keep(r.Key) {
		return r.Value, false, nil
	}
	e.RevokeTime = now.UTC().Truncate(time.Microsecond)
	next, err := encodeCredential(e)
	return next.Value, true, err
}
