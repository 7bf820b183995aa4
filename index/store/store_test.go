package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
)

var (
	hallA = scope.Ref{Tenant: "fair", Scope: "hall-a"}
	hallB = scope.Ref{Tenant: "fair", Scope: "hall-b"}
)

// site is a store with its keyring, in a folder of the test.
type site struct {
	*Store
	t    testing.TB
	dir  string
	keys *keyring.Keyring
	opt  Options
}

// newSite opens a new store with keys for hall A and hall B. The cleanup checks
// the store's consistency.
func newSite(t testing.TB, opt Options) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), opt: opt}
	if _, err := keyring.CreateRoot(filepath.Join(s.dir, "root.key"), nil); err != nil {
		t.Fatal(err)
	}
	if opt.MemTableBytes == 0 {
		s.opt.MemTableBytes = 8 << 20 // small, so that tests reach its limits
	}
	s.open()
	for _, ref := range []scope.Ref{hallA, hallB} {
		if err := s.keys.Create(ref); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if s.Store == nil {
			return
		}
		if s.stopped() == nil {
			if err := s.Check(); err != nil {
				t.Errorf("the store is inconsistent at the end: %v", err)
			}
		}
		s.close()
	})
	return s
}

func (s *site) open() {
	s.t.Helper()
	if err := s.tryOpen(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) tryOpen() error {
	root, err := keyring.LoadRoot(filepath.Join(s.dir, "root.key"), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	keys, err := keyring.Open(filepath.Join(s.dir, "keyring"), root, keyring.Options{Create: true})
	if err != nil {
		s.t.Fatal(err)
	}
	s.keys = keys
	s.opt.Dir, s.opt.Keyring = filepath.Join(s.dir, "data"), keys
	if s.Store, err = Open(context.Background(), s.opt); err != nil {
		keys.Close()
	}
	return err
}

func (s *site) close() {
	s.t.Helper()
	if err := s.Store.Close(); err != nil {
		s.t.Error(err)
	}
	s.keys.Close()
	s.Store = nil
}

func (s *site) reopen() {
	s.t.Helper()
	s.close()
	s.open()
}

func (s *site) commit(m Mutation) {
	s.t.Helper()
	if err := s.Commit(context.Background(), m); err != nil {
		s.t.Fatal(err)
	}
}

// next is a mutation of the scope at its next epoch.
func (s *site) next(ref scope.Ref, puts ...Record) Mutation {
	h, _ := s.Head(ref)
	return Mutation{Ref: ref, Epoch: h.Epoch + 1, Puts: puts}
}

func (s *site) load(ref scope.Ref) (map[Key]string, Head) {
	s.t.Helper()
	got := map[Key]string{}
	h, err := s.Load(ref, func(r Record) error { got[r.Key] = string(r.Value); return nil })
	if err != nil {
		s.t.Fatal(err)
	}
	return got, h
}

func subject(ref scope.Ref, id string) Key { return Key{Kind: KindSubject, Ref: ref, ID: id} }

func template(ref scope.Ref, id string, n int) Key {
	return Key{Kind: KindTemplate, Ref: ref, ID: id, Template: scope.TemplateID(n)}
}

func rec(k Key, v string) Record { return Record{k, []byte(v)} }

func TestCommitGetReopenLoad(t *testing.T) {
	s := newSite(t, Options{})
	s.commit(Mutation{Puts: []Record{rec(Key{Kind: KindTenant, Ref: scope.Ref{Tenant: "fair"}}, "the fair")}})
	s.commit(s.next(hallA, rec(subject(hallA, "u1"), "one"), rec(template(hallA, "u1", 1), "code 1"), rec(template(hallA, "u1", 2), "code 2")))
	s.commit(s.next(hallB, rec(subject(hallB, "u1"), "other hall")))
	m := s.next(hallA, rec(subject(hallA, "u1"), "one, changed"))
	m.Deletes = []Key{template(hallA, "u1", 1), template(hallA, "nobody", 9)}
	s.commit(m)
	for range 2 {
		want := map[Key]string{subject(hallA, "u1"): "one, changed", template(hallA, "u1", 2): "code 2"}
		got, h := s.load(hallA)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("loaded %v, want %v", got, want)
		}
		if kept, _ := s.Head(hallA); h != kept || h.Records != 2 || h.Epoch != 2 {
			t.Fatalf("head %+v, kept %+v", h, kept)
		}
		if got, err := s.Get(subject(hallB, "u1")); err != nil || string(got) != "other hall" {
			t.Fatalf("Get: %q, %v", got, err)
		}
		if _, err := s.Get(template(hallA, "u1", 1)); !errors.Is(err, ErrNotFound) {
			t.Fatalf("Get of a deleted record: %v", err)
		}
		s.reopen()
	}
}

func TestListPages(t *testing.T) {
	s := newSite(t, Options{})
	var puts []Record
	var want []string
	for i := range 25 {
		id := fmt.Sprintf("u%02d", i)
		want = append(want, id)
		puts = append(puts, rec(subject(hallA, id), id), rec(template(hallA, id, 1), "c1"), rec(template(hallA, id, 300), "c300"))
	}
	puts = append(puts, rec(subject(hallA, "u1"), "u1"), rec(template(hallA, "u1", 7), "c7"))
	s.commit(s.next(hallA, puts...))
	want = append(want[:10:10], append([]string{"u1"}, want[10:]...)...)
	prefix := Key{Kind: KindSubject, Ref: hallA}
	for _, limit := range []int{0, 1, 7, 26, 100} {
		var got []string
		for after := ""; ; {
			page, err := s.List(prefix, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page {
				if string(r.Value) != r.Key.ID {
					t.Fatalf("%s holds %q", r.Key, r.Value)
				}
				got = append(got, r.Key.ID)
			}
			if limit == 0 || len(page) < limit {
				break
			}
			after = prefix.Cursor(page[len(page)-1].Key)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("limit %d: %v, want %v", limit, got, want)
		}
	}
	if prefix.Cursor(subject(hallA, "u03")) != "u03" {
		t.Errorf("the cursor of a subject is not its id: %q", prefix.Cursor(subject(hallA, "u03")))
	}
	prefix = Key{Kind: KindTemplate, Ref: hallA, ID: "u1"}
	page, err := s.List(prefix, "", 0)
	if err != nil || len(page) != 1 || page[0].Key != template(hallA, "u1", 7) {
		t.Errorf("templates of u1: %v, %v", page, err)
	}
	prefix.ID = "u03"
	first, err := s.List(prefix, "", 1)
	if err != nil || len(first) != 1 || first[0].Key.Template != 1 {
		t.Fatalf("templates of u03: %v, %v", first, err)
	}
	if page, err = s.List(prefix, prefix.Cursor(first[0].Key), 5); err != nil || len(page) != 1 || page[0].Key.Template != 300 {
		t.Errorf("second page: %v, %v", page, err)
	}
	if page, err = s.List(Key{Kind: KindSubject, Ref: hallB}, "", 0); err != nil || len(page) != 0 {
		t.Errorf("hall B: %v, %v", page, err)
	}
}

func TestListSystem(t *testing.T) {
	s := newSite(t, Options{})
	var puts []Record
	for _, tenant := range []string{"a", "b", "b-2"} {
		ref := scope.Ref{Tenant: scope.TenantID(tenant)}
		puts = append(puts, rec(Key{Kind: KindTenant, Ref: ref}, tenant), rec(Key{Kind: KindCredential, Ref: ref, ID: "c1"}, "secret"))
		for _, name := range []string{"x", "y"} {
			ref.Scope = scope.ScopeID(name)
			puts = append(puts, rec(Key{Kind: KindScope, Ref: ref}, tenant+"/"+name), rec(Key{Kind: KindRequest, Ref: ref, ID: "r"}, ""))
		}
	}
	puts = append(puts, rec(Key{Kind: KindCredential, ID: "platform"}, "p"), rec(Key{Kind: KindRequest, ID: "r"}, ""))
	s.commit(Mutation{Puts: puts})
	for _, c := range []struct {
		prefix Key
		after  string
		want   string
	}{
		{Key{Kind: KindTenant}, "", "a b b-2"},
		{Key{Kind: KindTenant}, "a", "b b-2"},
		{Key{Kind: KindScope}, "", "a/x a/y b/x b/y b-2/x b-2/y"},
		{Key{Kind: KindScope, Ref: scope.Ref{Tenant: "b"}}, "", "b/x b/y"},
		{Key{Kind: KindScope, Ref: scope.Ref{Tenant: "b"}}, "x", "b/y"},
		{Key{Kind: KindScope, Ref: scope.Ref{Tenant: "none"}}, "", ""},
		{Key{Kind: KindCredential}, "", "p secret secret secret"},
		{Key{Kind: KindCredential, Ref: scope.Ref{Tenant: "a"}}, "", "secret"},
	} {
		page, err := s.List(c.prefix, c.after, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range page {
			got = append(got, string(r.Value))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s after %q: %v, want %s", c.prefix, c.after, got, c.want)
		}
	}
	if page, err := s.List(Key{Kind: KindRequest}, "", 0); err != nil || len(page) != 7 {
		t.Errorf("%d requests, %v", len(page), err)
	}
}

func TestRefusedMutations(t *testing.T) {
	s := newSite(t, Options{})
	s.commit(s.next(hallA, rec(subject(hallA, "u1"), "one")))
	s.commit(Mutation{Puts: []Record{rec(Key{Kind: KindRevocation, Ref: hallB}, "gone")}})
	before := map[scope.Ref]Head{}
	for _, ref := range []scope.Ref{{}, hallA, hallB} {
		before[ref], _ = s.Head(ref)
	}
	stranger := scope.Ref{Tenant: "fair", Scope: "hall-z"}
	big := make([]byte, MaxValueBytes+1)
	var heavy []Record
	for i := range 100 {
		heavy = append(heavy, Record{subject(hallA, fmt.Sprint("h", i)), big[:MaxValueBytes]})
	}
	for name, c := range map[string]struct {
		m    Mutation
		want error
	}{
		"nothing":            {Mutation{}, ErrBadMutation},
		"bad ref":            {Mutation{Ref: scope.Ref{Tenant: "FAIR", Scope: "x"}, Epoch: 1}, ErrBadMutation},
		"other scope":        {Mutation{Ref: hallA, Epoch: 9, Puts: []Record{rec(subject(hallB, "u1"), "x")}}, ErrBadMutation},
		"delete other scope": {Mutation{Ref: hallA, Epoch: 9, Deletes: []Key{subject(hallB, "u1")}}, ErrBadMutation},
		"scope in system":    {Mutation{Puts: []Record{rec(subject(hallA, "u1"), "x")}}, ErrBadMutation},
		"same epoch":         {Mutation{Ref: hallA, Epoch: 1, Puts: []Record{rec(subject(hallA, "u2"), "x")}}, ErrEpoch},
		"no key":             {Mutation{Ref: stranger, Epoch: 1, Puts: []Record{rec(subject(stranger, "u2"), "x")}}, keyring.ErrNoKey},
		"no key, no puts":    {Mutation{Ref: stranger, Epoch: 1}, keyring.ErrNoKey},
		"unknown kind":       {Mutation{Puts: []Record{rec(Key{Kind: 99}, "x")}}, ErrBadKey},
		"no id":              {Mutation{Ref: hallA, Epoch: 9, Puts: []Record{rec(subject(hallA, ""), "x")}}, ErrBadKey},
		"no number":          {Mutation{Ref: hallA, Epoch: 9, Puts: []Record{rec(template(hallA, "u1", 0), "x")}}, ErrBadKey},
		"zero byte":          {Mutation{Ref: hallA, Epoch: 9, Puts: []Record{rec(subject(hallA, "u\x001"), "x")}}, ErrBadKey},
		"long id":            {Mutation{Ref: hallA, Epoch: 9, Puts: []Record{rec(subject(hallA, strings.Repeat("u", 256)), "x")}}, ErrBadKey},
		"superfluous part":   {Mutation{Ref: hallA, Epoch: 9, Puts: []Record{rec(Key{Kind: KindSubject, Ref: hallA, ID: "u", Template: 1}, "x")}}, ErrBadKey},
		"big value":          {Mutation{Ref: hallA, Epoch: 9, Puts: []Record{{subject(hallA, "u2"), big}}}, ErrTooBig},
		"big mutation":       {Mutation{Ref: hallA, Epoch: 9, Puts: heavy}, ErrTooBig},
		"second revocation":  {Mutation{Puts: []Record{rec(Key{Kind: KindRevocation, Ref: hallB}, "again")}}, ErrPermanent},
		"unrevocation":       {Mutation{Deletes: []Key{{Kind: KindRevocation, Ref: hallB}}}, ErrPermanent},
	} {
		if err := s.Commit(context.Background(), c.m); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for ref, h := range before {
		if now, _ := s.Head(ref); now != h {
			t.Errorf("%s: a refused mutation changed the head from %+v to %+v", ref, h, now)
		}
	}
}

// TestOrder submits from many goroutines and wants done in the order of each
// one's submission, and no more transactions than groups need.
func TestOrder(t *testing.T) {
	s := newSite(t, Options{})
	const writers, each = 8, 100
	refs := make([]scope.Ref, writers)
	for i := range refs {
		refs[i] = scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("s", i))}
		if err := s.keys.Create(refs[i]); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	order := make([][]int, writers)
	for w, ref := range refs {
		wg.Add(each)
		go func() {
			for i := range each {
				puts := []Record{rec(subject(ref, fmt.Sprint("u", i)), "x"), rec(template(ref, fmt.Sprint("u", i), 1), "y")}
				if i%10 == 5 { // refused, and yet reported in its turn
					puts = append(puts, rec(subject(ref, ""), "bad"))
				}
				s.Submit(Mutation{Ref: ref, Epoch: scope.Epoch(i + 1), Puts: puts}, func(err error) {
					if bad := i%10 == 5; bad != (err != nil) {
						t.Errorf("mutation %d: %v", i, err)
					}
					order[w] = append(order[w], i)
					wg.Done()
				})
			}
		}()
	}
	wg.Wait()
	for w, ref := range refs {
		for i, got := range order[w] {
			if got != i {
				t.Fatalf("writer %d: report %d was for mutation %d", w, i, got)
			}
		}
		if got, h := s.load(ref); len(got) != each*9/10*2 || h.Epoch != each {
			t.Fatalf("writer %d: %d records, head %+v", w, len(got), h)
		}
	}
	st := s.Stats()
	if st.Bytes == 0 || st.FreeBytes == 0 || st.Scopes != writers {
		t.Errorf("%+v", st)
	}
	if st.Mutations != writers*each*9/10 || st.Transactions >= st.Mutations {
		t.Errorf("%d mutations in %d transactions: nothing was grouped", st.Mutations, st.Transactions)
	}
}

// TestGroupIsHalved puts more into one group than a transaction of Badger takes.
func TestGroupIsHalved(t *testing.T) {
	s := newSite(t, Options{})
	value := bytes.Repeat([]byte("x"), 200<<10)
	var group []*op
	var order []int
	for i := range 9 { // 1.8 MB; a transaction holds 15% of 8 MiB
		o := s.prepare(Mutation{Ref: hallA, Epoch: scope.Epoch(i + 1), Puts: []Record{{subject(hallA, fmt.Sprint("u", i)), value}}})
		o.done = func(err error) {
			if err != nil {
				t.Errorf("mutation %d: %v", i, err)
			}
			order = append(order, i)
		}
		group = append(group, o)
	}
	if err := s.wait(context.Background(), &op{run: func() error { s.commitGroup(group); return nil }}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(order) != "[0 1 2 3 4 5 6 7 8]" {
		t.Errorf("reported in the order %v", order)
	}
	if st := s.Stats(); st.Transactions < 3 {
		t.Errorf("%d transactions", st.Transactions)
	}
	if got, h := s.load(hallA); len(got) != 9 || h.Epoch != 9 {
		t.Errorf("%d records, head %+v", len(got), h)
	}
}

func TestClosedStore(t *testing.T) {
	s := newSite(t, Options{})
	st := s.Store
	s.close()
	if err := st.Commit(context.Background(), Mutation{Puts: []Record{rec(Key{Kind: KindTenant, Ref: scope.Ref{Tenant: "x"}}, "")}}); err == nil {
		t.Error("Commit after Close succeeded")
	}
	var got error
	st.Submit(Mutation{Ref: hallA, Epoch: 1}, func(err error) { got = err })
	if !errors.Is(got, ErrClosed) {
		t.Errorf("Submit after Close: %v", got)
	}
	if err := st.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	_, getErr := st.raw(keyTip)
	_, listErr := st.List(Key{Kind: KindTenant}, "", 0)
	for name, err := range map[string]error{"Get": getErr, "List": listErr, "Check": st.Check()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	s.open()
}

func TestFullDisk(t *testing.T) {
	free := uint64(1 << 40)
	s := newSite(t, Options{MinFreeBytes: 800 << 20, FreeBytes: func(string) (uint64, error) {
		if free == 0 {
			return 0, os.ErrInvalid
		}
		return free, nil
	}})
	try := func(reserve bool) error {
		s.wait(context.Background(), &op{run: func() error { s.free.at = s.free.at.Add(-freeSpaceAge); return nil }})
		m := s.next(hallA, rec(subject(hallA, "u1"), "x"))
		m.Reserve = reserve
		return s.Commit(context.Background(), m)
	}
	for _, c := range []struct {
		free          uint64
		plain, urgent bool
	}{{1 << 40, true, true}, {800 << 20, true, true}, {800<<20 - 1, false, true}, {100 << 20, false, true}, {100<<20 - 1, false, false}, {0, false, false}, {1 << 40, true, true}} {
		free = c.free
		if err := try(false); (err == nil) != c.plain || err != nil && !errors.Is(err, ErrNoSpace) {
			t.Errorf("%d MiB free: %v", c.free>>20, err)
		}
		if err := try(true); (err == nil) != c.urgent || err != nil && !errors.Is(err, ErrNoSpace) {
			t.Errorf("%d MiB free, reserve: %v", c.free>>20, err)
		}
	}
}

// On a disk that is wholly full the reserve is given up to what erases; enrolling and
// rewriting tables are refused, until there is as much room again.
func TestReserveOnAFullDisk(t *testing.T) {
	const least, kept = 64 << 20, 16 << 20
	other := uint64(1 << 40) // free besides the reserve
	s := newSite(t, Options{MinFreeBytes: least, ReserveBytes: kept, FreeBytes: func(dir string) (uint64, error) {
		if _, err := os.Stat(filepath.Join(dir, "reserve")); err != nil {
			return other + kept, nil
		}
		return other, nil
	}})
	ctx := context.Background()
	look := func() {
		s.wait(ctx, &op{run: func() error { s.free.at = s.free.at.Add(-freeSpaceAge); return nil }})
	}
	try := func(erases bool) error {
		look()
		m := s.next(hallA, rec(subject(hallA, "u1"), "x"))
		m.Reserve = erases
		return s.Commit(ctx, m)
	}
	rewrite := func() error {
		look()
		return s.wait(ctx, &op{run: func() error { return s.free.checkRewrite(time.Now()) }})
	}
	if err := s.KeepReserve(); err != nil || s.free.reserve.Held() != kept {
		t.Fatalf("the reserve holds %d bytes, %v", s.free.reserve.Held(), err)
	}
	other = 0
	for name, err := range map[string]error{"enrolling": try(false), "rewriting": rewrite()} {
		if !errors.Is(err, ErrNoSpace) {
			t.Errorf("%s on a full disk: %v", name, err)
		}
	}
	for range 2 {
		if err := try(true); err != nil || s.free.reserve.Held() != 0 {
			t.Fatalf("erasing on a full disk: %v; the reserve holds %d", err, s.free.reserve.Held())
		}
	}
	if err := rewrite(); !errors.Is(err, ErrNoSpace) {
		t.Errorf("rewriting in the reserve: %v", err)
	}
	other = 1 << 40
	if err := errors.Join(s.KeepReserve(), try(false), rewrite()); err != nil || s.free.reserve.Held() != kept {
		t.Errorf("with room again: %v; the reserve holds %d", err, s.free.reserve.Held())
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 32, 256} {
		b.Run(fmt.Sprint("goroutines=", writers), func(b *testing.B) {
			s := newSite(b, Options{MemTableBytes: 32 << 20})
			refs := make([]scope.Ref, writers)
			for i := range refs {
				refs[i] = scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("s", i))}
				if err := s.keys.Create(refs[i]); err != nil {
					b.Fatal(err)
				}
			}
			code := bytes.Repeat([]byte("c"), 530)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w, ref := range refs {
				wg.Go(func() {
					for i := w; i < b.N; i += writers {
						id := fmt.Sprint("u", i)
						if err := s.Commit(context.Background(), s.next(ref, Record{subject(ref, id), code[:120]}, Record{template(ref, id, 1), code})); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64(b.N)/float64(s.Stats().Transactions), "mutations/txn")
		})
	}
}

// BenchmarkSubmit queues from four goroutines without waiting, as a bulk
// enrolment does: a subject and a template each.
func BenchmarkSubmit(b *testing.B) {
	s := newSite(b, Options{MemTableBytes: 32 << 20})
	code := bytes.Repeat([]byte("c"), 530)
	const writers = 4
	var refs [writers]scope.Ref
	for i := range refs {
		refs[i] = scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("s", i))}
		if err := s.keys.Create(refs[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	wg.Add(b.N)
	for w, ref := range refs {
		go func() {
			for i, epoch := w, scope.Epoch(1); i < b.N; i, epoch = i+writers, epoch+1 {
				id := fmt.Sprint("u", i)
				s.Submit(Mutation{Ref: ref, Epoch: epoch, Puts: []Record{{subject(ref, id), code[:120]}, {template(ref, id, 1), code}}}, func(err error) {
					if err != nil {
						b.Error(err)
					}
					wg.Done()
				})
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mutations/s")
	b.ReportMetric(float64(b.N)/float64(s.Stats().Transactions), "mutations/txn")
}

// BenchmarkLoad reads a gallery of 20,000 subjects with a template each, and
// opens the store that holds it.
func BenchmarkLoad(b *testing.B) {
	const subjects = 20000
	s := newSite(b, Options{MemTableBytes: 32 << 20})
	code := bytes.Repeat([]byte("c"), 530)
	for at := 0; at < subjects; {
		m := s.next(hallA)
		for range 500 {
			id := fmt.Sprint("u", at)
			m.Puts = append(m.Puts, Record{subject(hallA, id), code[:120]}, Record{template(hallA, id, 1), code})
			at++
		}
		s.commit(m)
	}
	s.reopen()
	b.Run("load", func(b *testing.B) {
		b.SetBytes(subjects * (120 + 530))
		for b.Loop() {
			if _, err := s.Load(hallA, func(Record) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)*2*subjects/b.Elapsed().Seconds(), "records/s")
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			s.reopen()
		}
	})
}
