package index

import (
	"runtime"
	"sync/atomic"

	"github.com/menshen-io/menshen/index/scope"
)

// snapshot is the whole of a gallery after one Apply. It is immutable; readers
// lease it, and what it still shows but its successor does not is wiped when
// the last lease of it and of every older snapshot has been returned.
//
// holds counts the leases and two more: one while the snapshot is current, one
// while an older snapshot is in use. So it reaches zero exactly once, when
// nobody can see the snapshot or anything older, and never rises again.
//
// The list of shards is copied for every Apply, 8 bytes a shard: 20 KB at ten
// million templates, 2 us.
type snapshot struct {
	epoch  scope.Epoch
	shards []*shardView // by slot; empty slots have no shard
	live   int          // rows shown alive
	dead   int          // rows that are not, and still stand in a shard

	holds   atomic.Int64
	settled atomic.Bool   // no older snapshot is in use
	left    chan struct{} // where not nil, closed when settled

	// Set by the writer before it gives up the hold of the current snapshot.
	next    *snapshot
	wipes   []rowRange // rows of shards that next shows as dead
	retired []*shard   // shards that next does not show at all
}

type rowRange struct {
	shard      *shard
	start, end int
}

// newSnapshot makes a snapshot with the two holds described above.
func newSnapshot(epoch scope.Epoch, shards []*shardView, live, dead int) *snapshot {
	s := &snapshot{epoch: epoch, shards: shards, live: live, dead: dead}
	s.holds.Store(2)
	return s
}

// lease takes a hold for a reader. It fails when the snapshot has been left
// already; the reader then looks for the current one again.
func (s *snapshot) lease() bool {
	for {
		n := s.holds.Load()
		if n == 0 {
			return false
		}
		if s.holds.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// hold takes another lease for who holds one.
func (s *snapshot) hold() { s.holds.Add(1) }

// release returns a hold. Whoever returns the last one wipes.
func (s *snapshot) release() {
	for s.holds.Add(-1) == 0 {
		for _, w := range s.wipes {
			w.shard.wipe(w.start, w.end)
		}
		for _, sh := range s.retired {
			sh.wipe(0, sh.capacity())
			runtime.Gosched() // a million templates take a while
		}
		next := s.next
		next.settle()
		s = next // which was held because s was in use
	}
}

// settle records that no older snapshot is in use.
func (s *snapshot) settle() {
	s.settled.Store(true)
	if s.left != nil {
		close(s.left)
	}
}
