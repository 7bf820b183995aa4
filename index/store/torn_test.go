package store

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// childDrop removes hall A, or a subject of it, while no file can be opened:
// before it begins, when it is to do nothing, and then in the middle, where
// Badger's DropPrefix fails half-way. Then it goes on using the store.
func childDrop(dir, what string) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		log.Fatal(err)
	}
	limit := func(n uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: files.Max}); err != nil {
			log.Fatal(err)
		}
	}
	s, err := openFolder(dir)
	if err != nil {
		log.Fatal(err)
	}
	s.opt.Failpoint = func(step string) {
		if step == "store/drop" {
			limit(0)
		}
	}
	ctx := context.Background()
	drop := func() error { _, err := s.EraseScope(ctx, hallA, nil); return err }
	if what == "subject" {
		keys := whole(hallA, "u1")
		h, _ := s.Head(hallA)
		if err := s.Commit(ctx, Mutation{Ref: hallA, Epoch: h.Epoch + 1, Purge: keys, Deletes: []Key{
			subject(hallA, "u1"), template(hallA, "u1", 1), template(hallA, "u1", 2),
		}}); err != nil {
			log.Fatal(err)
		}
		drop = func() error { _, err := s.Purge(ctx, keys, nil); return err }
	}
	limit(0)
	if err := drop(); !errors.Is(err, ErrNotErased) || !s.Writable() {
		log.Fatalf("dropped without files: %v", err)
	}
	limit(files.Cur)
	h, _ := s.Head(hallB)
	for _, use := range []struct {
		what string
		do   func() error
	}{
		{"drop", drop},
		{"write", func() error { return s.Commit(ctx, enrolment(hallB, h.Epoch+1)) }},
		{"read", func() error { _, err := s.Get(subject(hallB, "u1")); return err }},
		{"drop again", drop},
	} {
		if err := use.do(); !errors.Is(err, ErrFailed) {
			log.Fatalf("%s: %v", use.what, err)
		}
	}
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Print("stood")
	os.Exit(0)
}

// TestDropThatFails lets the database fail while it drops records, and wants the
// process to stand, everything after it refused, and the next start to finish it.
func TestDropThatFails(t *testing.T) {
	for _, what := range []string{"scope", "subject"} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t, Options{})
			s.fill(hallA, 60)
			s.fill(hallB, 60)
			secrets := s.sealedValues(scopePrefix(hallA))
			s.close()
			if out, err := child("drop", s.dir, what).CombinedOutput(); err != nil || string(out[max(0, len(out)-5):]) != "stood" {
				t.Fatalf("%v:\n%s", err, out)
			}
			s.open()
			if _, err := s.EraseScope(context.Background(), hallA, nil); err != nil {
				t.Fatal(err)
			}
			if n := s.grep(secrets); n != 0 {
				t.Errorf("%d sealed records are left", n)
			}
			if got, _ := s.load(hallB); len(got) != 180 {
				t.Errorf("%d records of the other scope", len(got))
			}
		})
	}
}
