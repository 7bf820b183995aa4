package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"pgregory.net/rapid"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
)

// fill enrols n subjects, three records each, in mutations of up to 50.
func (s *site) fill(ref scope.Ref, n int) {
	s.t.Helper()
	for at := 0; at < n; {
		m := s.next(ref)
		for range min(50, n-at) {
			at++
			m.Puts = append(m.Puts, enrolment(ref, scope.Epoch(at)).Puts...)
		}
		s.commit(m)
	}
}

// sealedValues returns the sealed bytes of all records under a prefix.
func (s *site) sealedValues(prefix []byte) [][]byte {
	s.t.Helper()
	var out [][]byte
	if err := s.scan(prefix, true, func(_, v []byte) error { out = append(out, bytes.Clone(v)); return nil }); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// grep counts how many of the texts stand in the files of the data directory.
func (s *site) grep(texts [][]byte) int {
	s.t.Helper()
	found := 0
	filepath.WalkDir(s.opt.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			s.t.Error(err)
		}
		b = bytes.TrimRight(b, "\x00")
		for _, text := range texts {
			if bytes.Contains(b, text) {
				found++
			}
		}
		return nil
	})
	return found
}

// flush writes the memory tables to disk, so that later reads come from tables.
func (s *site) flush() { s.reopen() }

func TestEraseScope(t *testing.T) {
	for name, before := range map[string]func(*site){
		"in memory tables": func(*site) {},
		"in tables":        (*site).flush,
		"in both": func(s *site) {
			s.flush()
			s.fill(hallA, 20)
		},
		"with deleted and replaced records": func(s *site) {
			s.flush()
			m := s.next(hallA)
			for i := range 20 {
				m.Deletes = append(m.Deletes, subject(hallA, fmt.Sprint("u", i+1)))
				m.Puts = append(m.Puts, rec(template(hallA, fmt.Sprint("u", i+30), 1), "replaced"))
			}
			s.commit(m)
		},
		"all deleted before": func(s *site) {
			m := s.next(hallA)
			for i := range 60 {
				for _, p := range enrolment(hallA, scope.Epoch(i+1)).Puts {
					m.Deletes = append(m.Deletes, p.Key)
				}
			}
			s.commit(m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, Options{})
			s.fill(hallA, 60)
			s.fill(hallB, 60)
			secrets := s.sealedValues(scopePrefix(hallA))
			if len(secrets) != 180 || s.grep(secrets) < 180 {
				t.Fatalf("%d of %d sealed values found before the erasure: the test shows nothing", s.grep(secrets), len(secrets))
			}
			before(s)
			live := len(s.sealedValues(scopePrefix(hallA)))
			if err := s.keys.Destroy(hallA); err != nil {
				t.Fatal(err)
			}
			got, err := s.EraseScope(context.Background(), hallA, nil)
			if err != nil {
				t.Fatal(err)
			}
			if int(got.Head.Records) != live {
				t.Errorf("erased %d records, %d were live", got.Head.Records, live)
			}
			if name != "with deleted and replaced records" && got.Bytes < uint64(len(secrets))*50 {
				t.Errorf("erased %d bytes", got.Bytes)
			}
			if n := s.grep(secrets); n != 0 {
				t.Errorf("%d sealed values are still in the files", n)
			}
			if again, err := s.EraseScope(context.Background(), hallA, nil); err != nil || again.Head != (Head{}) || again.Scan.Files == 0 {
				t.Errorf("erased again: %+v, %v", again, err)
			}
			if _, ok := s.Head(hallA); ok {
				t.Error("the head is still there")
			}
			for range 2 {
				if other, _ := s.load(hallB); len(other) != 180 {
					t.Errorf("%d records of the other scope", len(other))
				}
				if err := s.Check(); err != nil {
					t.Error(err)
				}
				if n := len(s.sealedValues(scopePrefix(hallA))); n != 0 {
					t.Errorf("%d keys are there again", n)
				}
				s.reopen()
			}
			if n := s.grep(secrets); n != 0 {
				t.Errorf("%d sealed values are in the files after reopening", n)
			}
		})
	}
}

// TestBadgerSkipsDeletedPrefix pins the behaviour of Badger for which EraseScope puts
// a sentinel. When it fails, Badger has changed and the sentinel may go.
func TestBadgerSkipsDeletedPrefix(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 20)
	secrets := s.sealedValues(scopePrefix(hallA))
	s.flush()
	err := s.db.Update(func(txn *badger.Txn) error {
		return s.scan(scopePrefix(hallA), false, func(key, _ []byte) error { return txn.Delete(bytes.Clone(key)) })
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.DropPrefix(scopePrefix(hallA)); err != nil {
		t.Fatal(err)
	}
	if s.grep(secrets) == 0 {
		t.Error("DropPrefix removed deleted records without a live key")
	}
	if _, err := s.EraseScope(context.Background(), hallA, nil); err != nil {
		t.Fatal(err)
	}
	if n := s.grep(secrets); n != 0 {
		t.Errorf("EraseScope left %d sealed values", n)
	}
}

func TestNothingComesAfterTheErasure(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 5)
	late := s.prepare(s.next(hallA, rec(subject(hallA, "late"), "sealed before the key went")))
	if err := s.keys.Destroy(hallA); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(subject(hallA, "u1")); !errors.Is(err, keyring.ErrNoKey) {
		t.Errorf("Get without a key: %v", err)
	}
	if _, err := s.Load(hallA, func(Record) error { return nil }); !errors.Is(err, keyring.ErrNoKey) {
		t.Errorf("Load without a key: %v", err)
	}
	if _, err := s.EraseScope(context.Background(), hallA, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(context.Background(), late); !errors.Is(err, keyring.ErrNoKey) {
		t.Errorf("a mutation from before the destruction: %v", err)
	}
	if n := len(s.sealedValues(scopePrefix(hallA))); n != 0 {
		t.Errorf("%d records", n)
	}
}

// TestInterruptedErasure stops an erasure at each of its steps, as a crash would,
// and wants a repetition to finish it and to say what there was.
func TestInterruptedErasure(t *testing.T) {
	for _, step := range []string{"begun", "dropped", "scanned"} {
		t.Run(step, func(t *testing.T) {
			s := newSite(t, Options{})
			s.fill(hallA, 20)
			s.fill(hallB, 20)
			secrets := s.sealedValues(scopePrefix(hallA))
			want, _ := s.Head(hallA)
			note := func() []Record { return []Record{rec(Key{Kind: KindLedger, ID: "test"}, "settled")} }
			stopped := errors.New("stopped here")
			s.Store.opt.Failpoint = func(at string) {
				if at == "store/erase/"+step {
					panic(stopped)
				}
			}
			func() {
				defer func() {
					if p := recover(); p != stopped {
						t.Errorf("not stopped: %v", p)
					}
				}()
				s.EraseScope(context.Background(), hallA, func(Erased) []Record { return note() })
			}()
			s.reopen()
			if _, err := s.Get(note()[0].Key); !errors.Is(err, ErrNotFound) {
				t.Errorf("settled before the end: %v", err)
			}
			got, err := s.EraseScope(context.Background(), hallA, func(e Erased) []Record { return note() })
			if err != nil || got.Head != want || got.Bytes < uint64(len(secrets))*50 || got.Scan.Files == 0 {
				t.Errorf("%+v, %v; want the head %+v", got, err, want)
			}
			if n := s.grep(append(secrets, scopePrefix(hallA))); n != 0 {
				t.Errorf("%d traces are in the files", n)
			}
			if _, err := s.raw(refKey(spaceErasing, hallA)); !errors.Is(err, ErrNotFound) {
				t.Errorf("the note of the erasure is still there: %v", err)
			}
			if b, err := s.Get(note()[0].Key); err != nil || string(b) != "settled" {
				t.Errorf("what settled it: %q, %v", b, err)
			}
			if other, _ := s.load(hallB); len(other) != 60 {
				t.Errorf("%d records of the other scope", len(other))
			}
			if err := s.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReaderKeepsFiles erases a scope under a reader that keeps its tables, and
// wants the erasure to wait for the bytes to go, and a repetition to remember.
func TestReaderKeepsFiles(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 20)
	s.flush()
	secrets := s.sealedValues(scopePrefix(hallA))
	begun, release := make(chan struct{}), make(chan struct{})
	var reader sync.WaitGroup
	var begin sync.Once
	reader.Go(func() {
		s.scan(scopePrefix(hallA), false, func(_, _ []byte) error {
			begin.Do(func() {
				close(begun)
				<-release
			})
			return nil
		})
	})
	<-begun
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		if _, err := s.EraseScope(ctx, hallA, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("erased under a reader with %d values in the files: %v", s.grep(secrets), err)
		}
		cancel()
	}
	time.AfterFunc(200*time.Millisecond, func() { close(release) })
	var callers sync.WaitGroup
	for range 3 {
		callers.Go(func() {
			if _, err := s.EraseScope(context.Background(), hallA, nil); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	reader.Wait()
	if n := s.grep(secrets); n != 0 {
		t.Errorf("%d sealed values are in the files", n)
	}
}

// TestEraseAmongWriters erases scopes while others are written and read.
func TestEraseAmongWriters(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 200)
	var work sync.WaitGroup
	stop := make(chan struct{})
	work.Go(func() {
		for epoch := scope.Epoch(1); ; epoch++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Commit(context.Background(), enrolment(hallB, epoch)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	work.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			n := 0
			h, err := s.Load(hallB, func(Record) error { n++; return nil })
			if err != nil || n != int(h.Records) || n != int(h.Epoch)*3 {
				t.Errorf("%d records, head %+v, %v", n, h, err)
				return
			}
		}
	})
	for i := range 4 {
		ref := scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("short-", i))}
		if err := s.keys.Create(ref); err != nil {
			t.Fatal(err)
		}
		s.fill(ref, 50)
		secrets := s.sealedValues(scopePrefix(ref))
		if got, err := s.EraseScope(context.Background(), ref, nil); err != nil || got.Head.Records != 150 {
			t.Errorf("%s: %+v, %v", ref, got, err)
		}
		if n := s.grep(secrets); n != 0 {
			t.Errorf("%s: %d sealed values are in the files", ref, n)
		}
	}
	close(stop)
	work.Wait()
	s.reopen()
	if got, _ := s.load(hallA); len(got) != 600 {
		t.Errorf("%d records of a scope that nobody touched", len(got))
	}
}

func TestNeedles(t *testing.T) {
	value := append([]byte{formatVersion}, bytes.Repeat([]byte("nonce-and-more"), 4)...)
	w, ok := needleOf(value)
	if _, short := needleOf([]byte("short")); short || !ok {
		t.Fatal("what is sealed and what is not")
	}
	n := newNeedles([]uint64{w}, []byte("the text"))
	big := strings.Repeat("z", 5000)
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"there":       {big + string(value) + big, true},
		"at the end":  {big + string(value[1:9]), true},
		"at start":    {string(value[1:9]), true},
		"not whole":   {big + string(value[1:8]) + big, false},
		"empty":       {"", false},
		"only zeros":  {strings.Repeat("\x00", 9000), false},
		"the text":    {big + "the text", true},
		"text begun":  {big + "the tex", false},
		"another one": {strings.ReplaceAll(string(value), "n", "m"), false},
	} {
		// A small buffer, so that needles stand across its borders.
		got, size, err := n.inReader(strings.NewReader(c.text), make([]byte, 11))
		if err != nil || got != c.want || !got && size != uint64(len(c.text)) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestSortPaced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		few := rapid.Custom(func(t *rapid.T) uint64 {
			return rapid.Uint64Range(0, 3).Draw(t, "small") << rapid.IntRange(0, 62).Draw(t, "shift")
		})
		list := rapid.SliceOfN(rapid.OneOf(rapid.Uint64(), few), 0, 300).Draw(t, "list")
		want := slices.Sorted(slices.Values(list))
		if sortPaced(list); !slices.Equal(list, want) {
			t.Fatalf("%v, want %v", list, want)
		}
	})
	list := make([]uint64, 100_000)
	for i := range list {
		list[i] = rand.Uint64()
	}
	if sortPaced(list); !slices.IsSorted(list) {
		t.Error("a long list is not sorted")
	}
}
