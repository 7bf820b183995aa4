package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/menshen-io/menshen/index/scope"
	"pgregory.net/rapid"
)

// TestAgainstModel makes random mutations, good and bad, with reopening, killing
// (closing without the store's knowledge is TestKill's) and erasing in between,
// and compares every space with a map after each step.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSite(t, Options{})
		defer func() {
			s.close()
			s.Store = nil
		}()
		m := &model{site: s, records: map[Key]string{}, epochs: map[scope.Ref]scope.Epoch{}, gone: map[scope.Ref]bool{}}
		steps := rapid.IntRange(5, 40).Draw(rt, "steps")
		for range steps {
			switch rapid.IntRange(0, 19).Draw(rt, "what") {
			case 0:
				s.reopen()
			case 1:
				m.erase(rt)
			default:
				m.mutate(rt)
			}
		}
		m.compare(rt)
		s.reopen()
		m.compare(rt)
	})
}

type model struct {
	*site
	records map[Key]string
	epochs  map[scope.Ref]scope.Epoch
	gone    map[scope.Ref]bool
}

func (m *model) draw(rt *rapid.T, ref scope.Ref) Key {
	id := rapid.SampledFrom([]string{"a", "a-", "a-b", "b"}).Draw(rt, "id")
	if ref == (scope.Ref{}) {
		tenant := scope.Ref{Tenant: "fair"}
		return rapid.SampledFrom([]Key{{Kind: KindTenant, Ref: tenant}, {Kind: KindCredential, ID: id}, {Kind: KindRequest, Ref: hallA, ID: id},
			{Kind: KindCredential, Ref: tenant, ID: id}, {Kind: KindScope, Ref: hallB}}).Draw(rt, "key")
	}
	return rapid.SampledFrom([]Key{subject(ref, id), template(ref, id, 1), template(ref, id, 256), {Kind: KindScopeRequest, Ref: ref, ID: id}}).Draw(rt, "key")
}

// mutate submits up to three mutations at once, so that they share a group.
func (m *model) mutate(rt *rapid.T) {
	type sent struct {
		m    Mutation
		want bool
		got  chan error
	}
	var all []sent
	for range rapid.IntRange(1, 3).Draw(rt, "group") {
		ref := rapid.SampledFrom([]scope.Ref{{}, hallA, hallB}).Draw(rt, "ref")
		mu := Mutation{Ref: ref, Epoch: m.epochs[ref] + scope.Epoch(rapid.IntRange(0, 2).Draw(rt, "epoch"))}
		next := maps.Clone(m.records)
		for range rapid.IntRange(0, 3).Draw(rt, "deletes") {
			k := m.draw(rt, ref)
			mu.Deletes = append(mu.Deletes, k)
			delete(next, k)
		}
		for range rapid.IntRange(0, 4).Draw(rt, "puts") {
			from := ref
			if rapid.IntRange(0, 5).Draw(rt, "system") == 0 {
				from = scope.Ref{}
			}
			k, v := m.draw(rt, from), rapid.StringN(0, 20, -1).Draw(rt, "value")
			mu.Puts = append(mu.Puts, rec(k, v))
			next[k] = v
		}
		want := true
		if ref == (scope.Ref{}) {
			want = len(mu.Puts)+len(mu.Deletes) > 0
		} else if m.gone[ref] || mu.Epoch <= m.epochs[ref] {
			want = false
		}
		if want {
			m.records = next
			m.epochs[ref] = mu.Epoch
		}
		all = append(all, sent{mu, want, make(chan error, 1)})
	}
	for _, s := range all {
		m.Submit(s.m, func(err error) { s.got <- err })
	}
	for _, s := range all {
		if err := <-s.got; (err == nil) != s.want {
			rt.Fatalf("mutation %+v: %v", s.m, err)
		}
	}
}

func (m *model) erase(rt *rapid.T) {
	ref := rapid.SampledFrom([]scope.Ref{hallA, hallB}).Draw(rt, "erase")
	if err := m.keys.Destroy(ref); err != nil {
		rt.Fatal(err)
	}
	want := uint64(0)
	for k := range m.records {
		if k.Kind.inScope() && k.Ref == ref {
			delete(m.records, k)
			want++
		}
	}
	m.gone[ref] = true
	if got, err := m.EraseScope(context.Background(), ref, nil); err != nil || got.Head.Records != want {
		rt.Fatalf("erased %+v, want %d records: %v", got, want, err)
	}
}

func (m *model) compare(rt *rapid.T) {
	for _, ref := range []scope.Ref{hallA, hallB} {
		want := map[Key]string{}
		for k, v := range m.records {
			if k.Kind.inScope() && k.Ref == ref {
				want[k] = v
			}
		}
		if m.gone[ref] {
			if _, ok := m.Head(ref); ok || len(want) > 0 {
				rt.Fatalf("%s is erased and has a head", ref)
			}
			continue
		}
		got := map[Key]string{}
		h, err := m.Load(ref, func(r Record) error { got[r.Key] = string(r.Value); return nil })
		if err != nil || !maps.Equal(got, want) || h.Epoch != m.epochs[ref] {
			rt.Fatalf("%s: %v at %+v, want %v at %d: %v", ref, got, h, want, m.epochs[ref], err)
		}
	}
	for k, v := range m.records {
		if k.Kind.inScope() {
			continue
		}
		if got, err := m.Get(k); err != nil || string(got) != v {
			rt.Fatalf("%s: %q, want %q: %v", k, got, v, err)
		}
	}
	n := 0
	for kind := range rules {
		if kind.inScope() {
			continue
		}
		page, err := m.List(Key{Kind: kind}, "", 0)
		if err != nil {
			rt.Fatal(err)
		}
		n += len(page)
		for _, r := range page {
			if v, ok := m.records[r.Key]; !ok || v != string(r.Value) {
				rt.Fatalf("listed %s: %q, want %q", r.Key, r.Value, v)
			}
		}
	}
	if h, _ := m.Head(scope.Ref{}); int(h.Records) != n {
		rt.Fatalf("listed %d records of the system space, the head knows of %d", n, h.Records)
	}
	if err := m.Check(); err != nil {
		rt.Fatal(err)
	}
}

func TestKeysParseBack(t *testing.T) {
	tenant := scope.Ref{Tenant: "fair"}
	keys := []Key{
		{Kind: KindTenant, Ref: tenant}, {Kind: KindCredential, ID: "c"}, {Kind: KindCredential, Ref: tenant, ID: "c"},
		{Kind: KindScope, Ref: hallA}, {Kind: KindRevocation, Ref: hallA}, {Kind: KindRequest, ID: "r"},
		{Kind: KindRequest, Ref: tenant, ID: "r"}, {Kind: KindRequest, Ref: hallA, ID: "r"},
		{Kind: KindRequest, ID: "any/bytes\xff but zero"},
		subject(hallA, "u"), template(hallA, "u", 1), template(hallA, "u", 0x00010000), template(hallA, "u", 0xffffffff),
		{Kind: KindScopeRequest, Ref: hallA, ID: "r"},
	}
	seen := map[string]Key{}
	for _, k := range keys {
		b, err := k.encode()
		if err != nil {
			t.Errorf("%s: %v", k, err)
			continue
		}
		if got, err := parseKey(b); err != nil || got != k {
			t.Errorf("%s came back as %s: %v", k, got, err)
		}
		if other, ok := seen[string(b)]; ok {
			t.Errorf("%s and %s stand at one place", k, other)
		}
		seen[string(b)] = k
	}
	for _, k := range []Key{{}, {Kind: KindTenant}, {Kind: KindTenant, Ref: hallA}, {Kind: KindScope, Ref: tenant}, {Kind: KindCredential},
		{Kind: KindTenant, Ref: scope.Ref{Tenant: "a\x00b"}}, {Kind: KindSubject, ID: "u"}, {Kind: KindSubject, Ref: tenant, ID: "u"}} {
		if b, err := k.encode(); !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: %q, %v", k, b, err)
		}
	}
	for _, k := range []Key{{}, subject(hallA, "u"), template(hallA, "u", 1), {Kind: KindTemplate, Ref: hallA, Template: 1},
		{Kind: KindTenant, Ref: tenant}, {Kind: KindScope, Ref: scope.Ref{Scope: "x"}}, {Kind: KindSubject, Ref: tenant}} {
		if b, err := k.encodePrefix(); !errors.Is(err, ErrBadKey) {
			t.Errorf("%s as a prefix: %q, %v", k, b, err)
		}
	}
	// No scope's space contains another's.
	for _, pair := range [][2]scope.Ref{{{Tenant: "a", Scope: "b"}, {Tenant: "a", Scope: "b-c"}}, {{Tenant: "a", Scope: "b"}, {Tenant: "a-b", Scope: "b"}}} {
		a, b := string(scopePrefix(pair[0])), string(scopePrefix(pair[1]))
		if len(a) <= len(b) && b[:len(a)] == a {
			t.Errorf("the space of %s lies in that of %s", pair[1], pair[0])
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, k := range []Key{{Kind: KindTenant, Ref: scope.Ref{Tenant: "fair"}}, template(hallA, "u", 7), {Kind: KindRequest, Ref: hallA, ID: "r"}} {
		b, err := k.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{})
	f.Add([]byte{spaceScopes, 'a', 0, 'b', 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKey(b)
		if err != nil {
			if !errors.Is(err, ErrBadKey) {
				t.Fatal(err)
			}
			return
		}
		again, err := k.encode()
		if err != nil || string(again) != string(b) {
			t.Fatalf("%q parsed to %s, which is %q, %v", b, k, again, err)
		}
	})
}

func FuzzParseValues(f *testing.F) {
	f.Add(Head{Epoch: 1, Records: 2}.encode(), tip{seq: 3}.encode(), slotOf(tip{seq: 4}))
	f.Fuzz(func(t *testing.T, head, tipBytes, slot []byte) {
		if h, err := parseHead(head); err == nil && string(h.encode()) != string(head) {
			t.Fatalf("head %x", head)
		}
		if v, err := parseTip(tipBytes); err == nil && string(v.encode()) != string(tipBytes) {
			t.Fatalf("tip %x", tipBytes)
		}
		if len(slot) == slotLen {
			if v, ok := parseSlot(slot); ok && string(slotOf(v)) != string(slot) {
				t.Fatalf("slot %x", slot)
			}
		}
	})
}

func TestDigestIsASum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := Digest{rapid.Uint64().Draw(t, "ah"), rapid.Uint64().Draw(t, "al")}
		b := Digest{rapid.Uint64().Draw(t, "bh"), rapid.Uint64().Draw(t, "bl")}
		if a.add(b) != b.add(a) || a.add(b).sub(b) != a {
			t.Fatal(fmt.Sprint(a, b))
		}
	})
}

// TestLoadStops ends a loading from within, early and late, and wants the error
// back and nothing left running.
func TestLoadStops(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 1500) // 4,500 records: more batches than Load reads ahead
	enough := errors.New("enough")
	for _, stop := range []int{1, 300, 4500} {
		n := 0
		_, err := s.Load(hallA, func(r Record) error {
			if n++; n == stop {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) || n != stop {
			t.Errorf("stopped at %d of %d: %v", n, stop, err)
		}
	}
	var last string
	n := 0
	h, err := s.Load(hallA, func(r Record) error {
		at, _ := r.Key.encode()
		if string(at) <= last {
			t.Fatalf("%s out of order", r.Key)
		}
		last, n = string(at), n+1
		return nil
	})
	if err != nil || n != 4500 || h.Records != 4500 {
		t.Errorf("%d records, %+v, %v", n, h, err)
	}
	if h, err := s.Load(hallB, func(Record) error { return enough }); err != nil || h != (Head{}) {
		t.Errorf("an empty scope: %+v, %v", h, err)
	}
	if _, err := s.Load(scope.Ref{}, nil); !errors.Is(err, ErrBadKey) {
		t.Errorf("no scope: %v", err)
	}
}
