package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	badger "github.com/dgraph-io/badger/v4"
)

// behind changes the database behind the store's back: nil deletes.
func (s *site) behind(k Key, value []byte) {
	s.t.Helper()
	key := mustEncode(s.t.(*testing.T), k)
	err := s.db.Update(func(txn *badger.Txn) error {
		if value == nil {
			return txn.Delete(key)
		}
		return txn.Set(key, value)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) survey(fn func(Record) error) Survey {
	s.t.Helper()
	v, err := s.Survey(hallA, fn)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// TestRecount loses one record and alters another, looks at what is left, and
// accepts it.
func TestRecount(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 1200) // more than one transaction of deletes
	s.fill(hallB, 1)
	if v := s.survey(nil); v.Sound() != nil || v.Found.Records != 3600 || v.Kinds[KindTemplate] != 2400 {
		t.Fatalf("before: %v, %d records, %v", v.Sound(), v.Found.Records, v.Kinds)
	}
	s.behind(template(hallA, "u3", 1), nil)
	value, err := s.raw(mustEncode(t, template(hallA, "u4", 1)))
	if err != nil {
		t.Fatal(err)
	}
	value = bytes.Clone(value)
	value[len(value)/2] ^= 1
	s.behind(template(hallA, "u4", 1), value)
	if _, err := s.Load(hallA, func(Record) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Fatalf("Load of a damaged scope: %v", err)
	}
	opened := 0
	v := s.survey(func(Record) error { opened++; return nil })
	if v.Sound() == nil || v.Head.Records != 3600 || v.Found.Records != 3599 || opened != 3598 || len(v.Unreadable) != 1 || v.Unreadable[0].Key != template(hallA, "u4", 1) {
		t.Fatalf("the survey: %v; %d of %d, %d open; %v", v.Sound(), v.Found.Records, v.Head.Records, opened, v.Unreadable)
	}
	var drop []Key
	for i := 100; i <= 1199; i++ {
		drop = append(drop, subject(hallA, fmt.Sprint("u", i)))
	}
	if _, err := s.Recount(context.Background(), v, append(drop, template(hallB, "u1", 1))); !errors.Is(err, ErrBadMutation) {
		t.Fatalf("dropping another scope's record: %v", err)
	}
	head, err := s.Recount(context.Background(), v, drop)
	if err != nil || head.Records != 3598-1100 || head.Epoch <= v.Head.Epoch {
		t.Fatalf("Recount: %+v, %v", head, err)
	}
	for range 2 {
		if got, h := s.load(hallA); len(got) != 2498 || h != head {
			t.Fatalf("after Recount: %d records, %+v", len(got), h)
		}
		s.reopen()
	}
	s.commit(s.next(hallA, rec(subject(hallA, "later"), "x")))
}

// TestSurveyWithoutKey counts what it can no longer open.
func TestSurveyWithoutKey(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 2)
	if err := s.keys.Destroy(hallA); err != nil {
		t.Fatal(err)
	}
	v := s.survey(func(Record) error { return errors.New("opened") })
	if !v.Sealed || v.Sound() == nil || v.Kinds[KindSubject] != 2 || v.Kinds[KindTemplate] != 4 {
		t.Errorf("%+v: %v", v, v.Sound())
	}
}
