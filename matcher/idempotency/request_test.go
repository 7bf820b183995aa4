package idempotency

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		id string
		ok bool
	}{
		{"", true}, {"a", true}, {"7b1c9a52-8a6b-4b57-9a53-0a4c7f7a1f1e", true},
		{strings.Repeat("x", MaxIDLen), true}, {strings.Repeat("x", MaxIDLen+1), false},
		{"with space", false}, {"new\nline", false}, {"ümlaut", false},
	} {
		err := Request{ID: tc.id}.Validate()
		if (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrBadRequestID) {
			t.Errorf("Validate(%q) = %v, want ok=%v", tc.id, err, tc.ok)
		}
	}
}

func TestRecordAndMatch(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	first := Request{ID: "r1", Fingerprint: [32]byte{1}}
	stored := Record(first, "subjects/visitor-1", now)
	if got, err := Match(stored, first); err != nil || got != "subjects/visitor-1" {
		t.Fatalf("Match = %q, %v", got, err)
	}
	if _, err := Match(stored, Request{ID: "r1", Fingerprint: [32]byte{2}}); !errors.Is(err, ErrReused) {
		t.Fatalf("other content: %v, want ErrReused", err)
	}
	for n := range headerLen {
		if _, err := Match(stored[:n], first); !errors.Is(err, ErrRecord) {
			t.Fatalf("record cut to %d bytes: %v, want ErrRecord", n, err)
		}
	}
	if Expired(stored, now.Add(Retention)) {
		t.Error("expired at its retention; it must be remembered that long")
	}
	if !Expired(stored, now.Add(Retention+time.Second)) {
		t.Error("not expired after its retention")
	}
}

func TestKeySeparatesSpaces(t *testing.T) {
	seen := map[string]string{}
	for _, c := range [][2]string{{"a", "bc"}, {"ab", "c"}, {"", "abc"}, {"abc", ""}, {"a", "b"}} {
		key := Request{ID: c[1]}.Key(c[0])
		if len(key) != 32 {
			t.Errorf("Key has %d bytes, want 32", len(key))
		}
		if other, taken := seen[key]; taken {
			t.Errorf("%q and %q share a key", c, other)
		}
		seen[key] = c[0] + "|" + c[1]
	}
}
