package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/menshen-io/menshen/index/scope"
)

// posts gives what waits in the outbox, in order.
func (s *site) posts() (out []string, numbers []uint64) {
	s.EachPost(func(number uint64, posts [][]byte) {
		numbers = append(numbers, number)
		for _, p := range posts {
			out = append(out, string(p))
		}
	})
	return out, numbers
}

func (s *site) wantPosts(want ...string) {
	s.t.Helper()
	if got, _ := s.posts(); !slices.Equal(got, want) {
		s.t.Fatalf("in the outbox are %q, want %q", got, want)
	}
}

// posting is the scope's next mutation with a post.
func (s *site) posting(ref scope.Ref, post string) Mutation {
	m := s.next(ref, rec(subject(ref, "u-"+post), "v"))
	m.Post = []byte(post)
	return m
}

func TestPostsAreDurableWithTheirMutations(t *testing.T) {
	s := newSite(t, Options{})
	s.commit(s.posting(hallA, "one"))
	s.commit(s.posting(hallB, "two"))
	late := s.posting(hallA, "never")
	late.Epoch-- // refused
	if err := s.Commit(context.Background(), late); !errors.Is(err, ErrEpoch) {
		t.Fatal(err)
	}
	s.wantPosts("one", "two")
	s.reopen()
	s.wantPosts("one", "two")
	_, numbers := s.posts()
	s.Settle(numbers[:1])
	s.wantPosts("two")
	s.reopen() // closing removes it
	s.wantPosts("two")
	s.commit(s.posting(hallA, "three"))
	s.wantPosts("two", "three")
	_, numbers = s.posts()
	s.Settle(numbers)
	s.commit(s.next(hallA, rec(subject(hallA, "u-4"), "v"))) // takes their records along
	if left, err := s.List(Key{Kind: KindPost}, "", 0); err != nil || len(left) != 0 {
		t.Fatalf("%d records are left, %v", len(left), err)
	}
	s.reopen()
	s.wantPosts()
}

// What waits when done is called has the post, and a group has them in its order.
func TestPostsOfAGroup(t *testing.T) {
	s := newSite(t, Options{})
	const n = 600 // beyond a group, of posts that do not fit into one record
	done := make(chan bool, n)
	var want []string
	for i := range n {
		m := Mutation{Ref: hallA, Epoch: scope.Epoch(i + 1), Post: bytes.Repeat(fmt.Appendf(nil, "%04d", i), MaxPostBytes/4)}
		want = append(want, string(m.Post))
		s.Submit(m, func(err error) {
			got, _ := s.posts()
			done <- err == nil && slices.Contains(got, string(m.Post))
		})
	}
	for range n {
		if !<-done {
			t.Fatal("a mutation is done and its post does not wait")
		}
	}
	s.wantPosts(want...)
	s.reopen()
	s.wantPosts(want...)
	if err := s.Commit(context.Background(), Mutation{Ref: hallA, Epoch: n + 1, Post: make([]byte, MaxPostBytes+1)}); !errors.Is(err, ErrTooBig) {
		t.Fatal(err)
	}
}

// Settled records go by themselves when nothing else is written.
func TestOutboxTidiesUp(t *testing.T) {
	s := newSite(t, Options{})
	s.commit(s.posting(hallA, "one"))
	_, numbers := s.posts()
	s.Settle(numbers)
	s.tidy()
	if err := s.wait(context.Background(), &op{run: func() error { return nil }}); err != nil { // behind it in the queue
		t.Fatal(err)
	}
	if left, err := s.List(Key{Kind: KindPost}, "", 0); err != nil || len(left) != 0 {
		t.Fatalf("%d records are left, %v", len(left), err)
	}
}

// On a full disk settled records stay, and are shown again at the next start; posts of
// what erases are taken.
func TestOutboxOnAFullDisk(t *testing.T) {
	var full atomic.Bool
	s := newSite(t, Options{FreeBytes: func(string) (uint64, error) {
		if full.Load() {
			return DefaultMinFreeBytes / 2, nil
		}
		return 1 << 40, nil
	}})
	s.commit(s.posting(hallA, "one"))
	_, numbers := s.posts()
	full.Store(true)
	s.free.at = s.free.at.AddDate(-1, 0, 0) // asks again; the committer rests
	if err := s.Commit(context.Background(), s.posting(hallA, "refused")); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	s.Settle(numbers)
	s.wantPosts()
	s.reopen()
	s.wantPosts("one")
	m := s.posting(hallA, "erased")
	m.Reserve = true
	s.commit(m)
	s.wantPosts("one", "erased")
}

// TestOutboxModel changes, settles and reopens at random and compares.
func TestOutboxModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSite(t, Options{})
		var want []string
		for i := range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				s.reopen()
			case 1:
				_, numbers := s.posts()
				n := rapid.IntRange(0, len(numbers)).Draw(rt, "settled")
				s.Settle(slices.Clone(numbers[:n]))
				want = want[n:]
			case 2:
				s.commit(s.next(hallB, rec(subject(hallB, fmt.Sprint(i)), "v")))
			default:
				post := strings.Repeat("act ", i%3) + fmt.Sprint(i)
				s.commit(s.posting(hallA, post))
				want = append(want, post)
			}
			s.wantPosts(want...)
		}
		s.reopen()
		s.wantPosts(want...)
		if left, err := s.List(Key{Kind: KindPost}, "", 0); err != nil || len(left) != len(want) {
			rt.Fatalf("%d records for %d posts, %v", len(left), len(want), err)
		}
	})
}

func TestPostsAreJoinedAndSplit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		post := rapid.Custom(func(rt *rapid.T) []byte {
			return []byte(strings.Repeat("enrol", rapid.IntRange(0, 20).Draw(rt, "same")) + rapid.StringN(1, 9, -1).Draw(rt, "own"))
		})
		posts := rapid.SliceOf(post).Draw(rt, "posts")
		joined := joinPosts(posts)
		got, err := splitPosts(joined)
		if err != nil || !slices.EqualFunc(got, posts, bytes.Equal) {
			rt.Fatalf("%q, %v", got, err)
		}
	})
}

func FuzzSplitPosts(f *testing.F) {
	f.Add(joinPosts([][]byte{[]byte("one"), []byte("once"), nil}))
	f.Add([]byte{0, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		posts, err := splitPosts(b)
		if err != nil {
			return
		}
		again, err := splitPosts(joinPosts(posts))
		if err != nil || !slices.EqualFunc(posts, again, bytes.Equal) {
			t.Fatalf("%q, then %q, %v", posts, again, err)
		}
	})
}
