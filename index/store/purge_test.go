package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
)

// whole are the keys under which everything of a subject stands.
func whole(ref scope.Ref, id string) []Key {
	return []Key{subject(ref, id), {Kind: KindTemplate, Ref: ref, ID: id}}
}

// remove deletes subjects of enrolment, with their bytes to be purged, and
// returns what has to be known for that.
func (s *site) remove(ref scope.Ref, ids ...string) (keys []Key, needles []uint64) {
	s.t.Helper()
	m := s.next(ref)
	for _, id := range ids {
		t, err := s.Trace(whole(ref, id))
		if err != nil {
			s.t.Fatal(err)
		}
		keys, needles = append(keys, whole(ref, id)...), append(needles, t.Needles...)
		m.Deletes = append(m.Deletes, subject(ref, id), template(ref, id, 1), template(ref, id, 2))
	}
	m.Purge = keys
	s.commit(m)
	return keys, needles
}

func TestPurge(t *testing.T) {
	for name, before := range map[string]func(*site){
		"in memory tables": func(*site) {},
		"in tables":        (*site).flush,
		"replaced": func(s *site) {
			s.flush()
			s.commit(s.next(hallA, rec(template(hallA, "u7", 1), "replaced"), rec(subject(hallA, "u7"), "replaced")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, Options{})
			s.fill(hallA, 60)
			s.fill(hallB, 60)
			var secrets [][]byte
			for _, id := range []string{"u7", "u1"} {
				for _, k := range whole(hallA, id) {
					p, err := purgePrefix(k)
					if err != nil {
						t.Fatal(err)
					}
					secrets = append(secrets, s.sealedValues(p)...)
				}
			}
			before(s)
			trace, err := s.Trace(whole(hallA, "u7"))
			if err != nil || trace.Head.Records != 3 || len(trace.Needles) < 3 || trace.Bytes < 1000 {
				t.Errorf("%+v, %v", trace, err)
			}
			keys, needles := s.remove(hallA, "u7", "u1")
			if len(secrets) != 6 || s.grep(secrets) < 6 {
				t.Fatalf("%d of %d values are there before: the test shows nothing", s.grep(secrets), len(secrets))
			}
			for range 2 {
				scan, err := s.Purge(context.Background(), keys, needles)
				if err != nil || scan.Files == 0 {
					t.Fatalf("%+v, %v", scan, err)
				}
				if n := s.grep(secrets); n != 0 {
					t.Errorf("%d values are still in the files", n)
				}
				// u10 to u19 and u7x begin like what is gone, and stay.
				got, _ := s.load(hallA)
				if len(got) != 58*3 {
					t.Errorf("%d records are left", len(got))
				}
				if err := s.Check(); err != nil {
					t.Error(err)
				}
				s.reopen()
				if err := s.Await(keys); err != nil {
					t.Error(err)
				}
			}
			if len(s.sealedValues(scopePrefix(hallB))) != 180 {
				t.Error("another scope lost records")
			}
		})
	}
}

// One template goes, the others of the subject stay.
func TestPurgeTemplate(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 3)
	key := template(hallA, "u2", 2)
	trace, err := s.Trace([]Key{key})
	if err != nil {
		t.Fatal(err)
	}
	m := s.next(hallA)
	m.Deletes, m.Purge = []Key{key}, []Key{key}
	s.commit(m)
	if _, err := s.Purge(context.Background(), m.Purge, trace.Needles); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.load(hallA); len(got) != 8 {
		t.Errorf("%d records are left", len(got))
	}
	if _, err := s.Purge(context.Background(), []Key{{Kind: KindScope, Ref: hallA}}, nil); !errors.Is(err, ErrBadKey) {
		t.Errorf("a scope as a record: %v", err)
	}
}

// Who is enrolled anew under an id whose bytes still wait stays, whatever is
// done first, and the bytes of before go all the same.
func TestPurgeAfterReturning(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint(restart), func(t *testing.T) {
			s := newSite(t, Options{})
			s.fill(hallA, 20)
			s.flush()
			keys, needles := s.remove(hallA, "u7")
			if restart {
				s.reopen()
				if err := s.Await(keys); err != nil {
					t.Fatal(err)
				}
			}
			m := s.next(hallA)
			m.Puts = enrolment(hallA, 7).Puts
			s.commit(m)
			if len(s.awaiting) != 0 && !restart {
				t.Errorf("%d prefixes still wait", len(s.awaiting))
			}
			if restart { // and a crash before the purge was noted as done
				s.reopen()
				if err := s.Await(keys); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Purge(context.Background(), keys, needles); err != nil {
				t.Fatal(err)
			}
			got, _ := s.load(hallA)
			if len(got) != 60 {
				t.Errorf("%d records, want 60", len(got))
			}
			if err := s.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A crash between the sentinels and the drop leaves sentinels, which are no
// records.
func TestInterruptedPurge(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 20)
	keys, needles := s.remove(hallA, "u7", "u8")
	prefixes, err := purgePrefixes(keys)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.wait(context.Background(), &op{run: func() error { return s.putSentinels(prefixes) }}); err != nil {
		t.Fatal(err)
	}
	s.reopen()
	if got, _ := s.load(hallA); len(got) != 54 {
		t.Errorf("%d records, want 54", len(got))
	}
	if list, err := s.List(Key{Kind: KindSubject, Ref: hallA}, "", 0); err != nil || len(list) != 18 {
		t.Errorf("%d subjects, %v", len(list), err)
	}
	if _, err := s.Purge(context.Background(), keys, needles); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	if n := len(s.sealedValues(prefixes[0])); n != 0 {
		t.Errorf("%d keys left", n)
	}
}

// Random subjects go and come back; memory and store agree all the time.
func TestPurgeAmongChanges(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 50)
	dice := rand.New(rand.NewPCG(1, 2))
	there := map[string]bool{}
	for i := range 50 {
		there[fmt.Sprint("u", i+1)] = true
	}
	var keys []Key
	var needles []uint64
	for range 40 {
		id := fmt.Sprint("u", 1+dice.IntN(50))
		if there[id] {
			k, n := s.remove(hallA, id)
			keys, needles = append(keys, k...), append(needles, n...)
		} else {
			n, _ := strconv.Atoi(id[1:])
			m := s.next(hallA)
			m.Puts = enrolment(hallA, scope.Epoch(n)).Puts
			s.commit(m)
		}
		there[id] = !there[id]
		if dice.IntN(4) == 0 {
			if _, err := s.Purge(context.Background(), keys, needles); err != nil {
				t.Fatal(err)
			}
			keys, needles = nil, nil
		}
		live := 0
		for _, ok := range there {
			if ok {
				live++
			}
		}
		if got, _ := s.load(hallA); len(got) != 3*live {
			t.Fatalf("%d records, want %d", len(got), 3*live)
		}
	}
}

// Widening keeps every live key apart and joins neighbours that go together.
func TestWiden(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 40)
	s.remove(hallA, "u20", "u21", "u22", "u23", "u24", "u25", "u26", "u27", "u28", "u29", "u2", "u40")
	var prefixes [][]byte
	for _, id := range []string{"u20", "u21", "u22", "u23", "u24", "u25", "u26", "u27", "u28", "u29", "u2", "u40", "u3"} {
		p, err := purgePrefix(subject(hallA, id))
		if err != nil {
			t.Fatal(err)
		}
		prefixes = append(prefixes, p)
	}
	wide, err := s.widen(prefixes)
	if err != nil || len(wide) != 2 { // "u2" and "u40", not "u3", which lives
		t.Fatalf("%q, %v", wide, err)
	}
	for _, p := range wide {
		if n := len(s.sealedValues(p)); n != 0 {
			t.Errorf("%q has %d live keys", p, n)
		}
		if bytes.Equal(p, scopePrefix(hallA)) {
			t.Error("the whole scope")
		}
	}
}

// BenchmarkPurge removes MENSHEN_PURGE subjects spread over a scope of 100,000
// and reports for how long writes had to wait.
func BenchmarkPurge(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("MENSHEN_PURGE"))
	if err != nil {
		b.Skip("set MENSHEN_PURGE to the number of subjects")
	}
	s := newSite(b, Options{MemTableBytes: 32 << 20})
	s.fill(hallA, 100_000)
	keys, needles := s.remove(hallA, "u1")
	if _, err := s.Purge(context.Background(), keys, needles); err != nil { // flushes what the filling left
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		dice := rand.Perm(99_999)
		var ids []string
		for _, i := range dice[:n] {
			ids = append(ids, fmt.Sprint("u", i+2))
		}
		var keys []Key
		var needles []uint64
		for len(ids) > 0 {
			k, l := s.remove(hallA, ids[:min(len(ids), 500)]...)
			keys, needles = append(keys, k...), append(needles, l...)
			ids = ids[min(len(ids), 500):]
		}
		prefixes, _ := purgePrefixes(keys)
		slices.SortFunc(prefixes, bytes.Compare)
		var longest, total time.Duration
		for some := range slices.Chunk(prefixes, dropBatch) {
			began := time.Now()
			if err := s.wait(context.Background(), &op{run: func() error { return s.dropDeleted(some) }}); err != nil {
				b.Fatal(err)
			}
			longest, total = max(longest, time.Since(began)), total+time.Since(began)
		}
		b.ReportMetric(float64(longest.Milliseconds()), "longest-ms")
		b.ReportMetric(float64(total.Milliseconds()), "blocked-ms")
		began := time.Now()
		scan, err := s.absent(context.Background(), needles, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "scan-ms")
		b.ReportMetric(float64(scan.Bytes)/1e6, "scan-MB")
	}
}
