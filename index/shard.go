package index

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// shardRows is the most rows that one shard holds. 4096 rows of 512 values are
// 2 MB: a scan checks its context about every 2 ms on one core, compaction
// copies 2 MB at most, and a million templates make 245 shards.
const shardRows = 4096

// shard holds rows as columns of a fixed capacity. A row is written once,
// before a snapshot shows it, and wiped once, after the last snapshot that
// shows it alive was left; in between it does not change. So readers need no
// lock: they touch rows that their snapshot shows alive and no other.
type shard struct {
	dim       int
	codes     []int8 // dim values a row
	norms     []int32
	notAfter  []int64 // see instant
	templates []scope.TemplateID
	subjects  []*subject
}

func newShard(dim, rows int) *shard {
	return &shard{
		dim:       dim,
		codes:     make([]int8, rows*dim),
		norms:     make([]int32, rows),
		notAfter:  make([]int64, rows),
		templates: make([]scope.TemplateID, rows),
		subjects:  make([]*subject, rows),
	}
}

// shardOverhead is the size of a row beside its code, in bytes.
const shardOverhead = 4 + 8 + 4 + 8

func (s *shard) capacity() int { return len(s.norms) }

func (s *shard) code(row int) code.Code {
	return code.Code{Q: s.codes[row*s.dim : (row+1)*s.dim], Norm2: s.norms[row]}
}

// put writes a row that no snapshot shows yet.
func (s *shard) put(row int, c code.Code, notAfter int64, sub *subject, template scope.TemplateID) {
	copy(s.codes[row*s.dim:(row+1)*s.dim], c.Q)
	s.norms[row] = c.Norm2
	s.notAfter[row] = notAfter
	s.templates[row] = template
	s.subjects[row] = sub
}

// wipe overwrites rows start..end-1 with zeros. No snapshot that shows them
// alive may be in use.
func (s *shard) wipe(start, end int) {
	clear(s.codes[start*s.dim : end*s.dim])
	clear(s.norms[start:end])
	clear(s.notAfter[start:end])
	clear(s.templates[start:end])
	clear(s.subjects[start:end])
}

// wiped reports whether rows start..end-1 hold nothing but zeros.
func (s *shard) wiped(start, end int) bool {
	for _, q := range s.codes[start*s.dim : end*s.dim] {
		if q != 0 {
			return false
		}
	}
	for row := start; row < end; row++ {
		if s.norms[row] != 0 || s.notAfter[row] != 0 || s.templates[row] != 0 || s.subjects[row] != nil {
			return false
		}
	}
	return true
}

// shardView is what one snapshot shows of a shard: its first rows, less the
// dead ones. The zero shardView is an empty slot.
type shardView struct {
	*shard
	rows   int
	dead   tombstones // never changed once a snapshot is published
	deaths int        // set bits in dead
}

// nextRun gives the first run of live rows at or after from, start..end-1, of
// at most limit rows. start == end says that there is none. A scan goes from
// run to run and so never reads a dead row, which may be being wiped.
func (v *shardView) nextRun(from, limit int) (start, end int) {
	if v.deaths == 0 {
		return from, min(from+limit, v.rows)
	}
	start = v.dead.next(from, v.rows, false)
	return start, v.dead.next(start, min(start+limit, v.rows), true)
}

// alive reports whether the view shows the row.
func (v *shardView) alive(row int) bool { return row < v.rows && !v.dead.has(row) }

// tombstones is a bitmap of dead rows. Rows beyond its end are alive.
type tombstones []uint64

func (t tombstones) has(row int) bool {
	return row/64 < len(t) && t[row/64]>>(row%64)&1 != 0
}

// next returns the first row in from..end-1 whose deadness is as asked, or end.
func (t tombstones) next(from, end int, dead bool) int {
	for from < end {
		if from/64 >= len(t) { // all alive from here
			if dead {
				return end
			}
			return from
		}
		word := t[from/64]
		if !dead {
			word = ^word
		}
		if word >>= from % 64; word != 0 {
			return min(from+bits.TrailingZeros64(word), end)
		}
		from = (from/64 + 1) * 64
	}
	return end
}

// copied returns a copy that is long enough for rows rows.
func (t tombstones) copied(rows int) tombstones {
	out := make(tombstones, max((rows+63)/64, len(t)))
	copy(out, t)
	return out
}

func (t tombstones) count() int {
	n := 0
	for _, w := range t {
		n += bits.OnesCount64(w)
	}
	return n
}

// subject is one enrolled person. id never changes; the rest belongs to the
// gallery's table and is read and written under its lock.
type subject struct {
	id       scope.SubjectID
	notAfter int64
	rows     []rowRef
}

// rowRef says where a template stands: row of the shard in slot.
type rowRef struct {
	template scope.TemplateID
	slot     uint32
	row      uint32
}

func (s *subject) templates() []scope.TemplateID {
	out := make([]scope.TemplateID, len(s.rows))
	for i, r := range s.rows {
		out[i] = r.template
	}
	slices.Sort(out)
	return out
}

// never is the instant of what does not expire.
const never = math.MaxInt64

// instant gives t in nanoseconds since 1970, as far as int64 reaches (1678 to
// 2262); times beyond are taken as its ends, below never.
func instant(t time.Time) int64 {
	const last = never - 1
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, last)):
		return last
	}
	return t.UnixNano()
}

// expiry is the instant at which a code with this NotAfter stops matching.
func expiry(notAfter time.Time) int64 {
	if notAfter.IsZero() {
		return never
	}
	return instant(notAfter)
}

// expired reports whether what ends at notAfter has ended at now: from that
// instant on, inclusive.
func expired(notAfter, now int64) bool { return notAfter != never && now >= notAfter }
