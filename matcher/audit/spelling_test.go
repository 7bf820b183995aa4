package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/menshen-io/menshen/index/scope"
)

// Acts and decisions are spelled by hand: as encoding/json spells them, byte by
// byte.
func TestSpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.StringMatching(`[ -~]{0,20}`), rapid.StringMatching(`[a-z0-9.-]{0,40}`))
		r := Record{
			Position: rapid.Uint64().Draw(t, "n"), Kind: KindDecision,
			Time: time.Unix(rapid.Int64Range(-1e10, 2e11).Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")).UTC(),
			Decision: &DecisionSummary{
				ID: text.Draw(t, "id"), Credential: text.Draw(t, "credential"), Call: text.Draw(t, "call"),
				Outcome: text.Draw(t, "outcome"), Subject: Pseudonym(text.Draw(t, "subject")), Margin: Margin(text.Draw(t, "margin")),
			},
		}
		if rapid.Bool().Draw(t, "act") {
			r.Kind, r.Decision, r.Scope = KindAct, nil, scope.ScopeID(text.Draw(t, "scope"))
			r.Act = &Act{
				Credential: text.Draw(t, "credential"), Role: text.Draw(t, "role"), Action: text.Draw(t, "action"), Resource: text.Draw(t, "resource"),
				Subject: Pseudonym(text.Draw(t, "subject")), Outcome: text.Draw(t, "outcome"), RequestID: text.Draw(t, "request id"),
				Suppressed: rapid.Uint64Range(0, 3).Draw(t, "suppressed"), Late: rapid.Bool().Draw(t, "late"),
			}
		}
		want, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.appendTo(nil); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s, %v\n%s", got, err, want)
		}
	})
}

func TestMac(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		message := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "message")
		h := hmac.New(sha256.New, key[:])
		h.Write(message)
		if got := mac(&key, message); !bytes.Equal(got[:], h.Sum(nil)) {
			t.Fatal("it differs from crypto/hmac")
		}
	})
}
