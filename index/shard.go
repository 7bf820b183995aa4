package index

import (
	"math"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

const (
	// shardRows is the most rows that one shard holds. 4096 rows of 512 values
	// are 2 MB: compaction copies 2 MB at most, a million templates make 245
	// shards, and a shard is the least that a worker is handed, so that it bounds
	// how long a search holds a core (see taskRows).
	shardRows = 1 << rowBits
	rowBits   = 12
	// blockRows is how many rows a scan takes at a time. 256 rows of 512 values
	// are 128 KB, which stay in a core's second-level cache, and 1 KB of sums.
	blockRows   = 256
	shardBlocks = shardRows / blockRows
)

// shard holds rows as columns of a fixed capacity. A row is written once,
// before a snapshot shows it, and wiped once, after the last snapshot that
// shows it alive was left; in between it does not change. So readers need no
// lock: they use rows that their snapshot shows alive and no other.
type shard struct {
	dim       int
	codes     []int8 // dim values a row
	norms     []int32
	notAfter  []int64 // see instant
	templates []scope.TemplateID
	names     []namePlace
	packed    []byte  // of the prefilter, stride bytes a row; nil without one
	levels    []uint8 // of the prefilter, see filter.pack
	// The least Norm2 and level of each block's rows, dead ones included. They
	// fall while rows are written that a scan does not see yet: it then looks
	// closer than it must, and loses nothing.
	leastNorm  [shardBlocks]atomic.Int32
	leastLevel [shardBlocks]atomic.Int32
}

// namePlace says where the id of a row stands in its view's arena: the first
// byte, 18 bits (4096 ids of 63 bytes), and the length, 6 bits.
type namePlace uint32

// newShard makes a shard for at least so many rows, at most shardRows.
//
// The columns stand in one piece of memory, since Go rounds what is larger than
// 32 KB up to pages of 8 KB: a hundred rows of 512 values, in columns of their
// own, lose 6 KB behind the codes and take 2 KB more for the rest. What would
// be lost becomes rows.
func newShard(dim, rows int, f *filter) *shard {
	const class, page = 32 << 10, 8 << 10
	each := dim + shardOverhead
	if size := rows * each; size > class && rows < shardRows {
		rows = min((size+page-1)/page*page/each, shardRows)
	}
	block := make([]int64, (rows*each+7)/8)
	rest := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(block))), 8*len(block))
	s := &shard{
		dim:       dim,
		notAfter:  column[int64](&rest, rows), // the widest first: all are aligned
		norms:     column[int32](&rest, rows),
		templates: column[scope.TemplateID](&rest, rows),
		names:     column[namePlace](&rest, rows),
		codes:     column[int8](&rest, rows*dim),
	}
	if f != nil {
		s.packed = make([]byte, rows*f.stride)
		s.levels = make([]uint8, rows)
	}
	for block := range s.leastNorm {
		s.leastNorm[block].Store(math.MaxInt32)
		s.leastLevel[block].Store(math.MaxUint8)
	}
	return s
}

// column takes n values, at least one, off the memory in rest.
func column[T any](rest *[]byte, n int) []T {
	out := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(*rest))), n)
	*rest = (*rest)[uintptr(n)*unsafe.Sizeof(out[0]):]
	return out
}

// shardOverhead is the size of a row beside its code, in bytes, without the
// prefilter and the subject's id.
const shardOverhead = 4 + 8 + 4 + 4

func (s *shard) capacity() int { return len(s.norms) }

// bytes is the size of the columns.
func (s *shard) bytes() int {
	return s.capacity()*(s.dim+shardOverhead) + len(s.packed) + len(s.levels)
}

func (s *shard) code(row int) code.Code {
	return code.Code{Q: s.values(row), Norm2: s.norms[row]}
}

func (s *shard) values(row int) []int8 { return s.codes[row*s.dim : (row+1)*s.dim] }

func (s *shard) packedRow(row int) []byte {
	stride := len(s.packed) / s.capacity()
	return s.packed[row*stride : (row+1)*stride]
}

// wipe overwrites rows start..end-1 with zeros. No snapshot that shows them
// alive may be in use. A scan that passes over them meanwhile reads zeros or
// what they were, and uses neither.
func (s *shard) wipe(start, end int) {
	clear(s.codes[start*s.dim : end*s.dim])
	clear(s.norms[start:end])
	clear(s.notAfter[start:end])
	clear(s.templates[start:end])
	clear(s.names[start:end])
	if s.packed != nil {
		stride := len(s.packed) / s.capacity()
		clear(s.packed[start*stride : end*stride])
		clear(s.levels[start:end])
	}
}

// wiped reports whether rows start..end-1 hold nothing but zeros.
func (s *shard) wiped(start, end int) bool {
	for row := start; row < end; row++ {
		if s.norms[row] != 0 || s.notAfter[row] != 0 || s.templates[row] != 0 || s.names[row] != 0 {
			return false
		}
		for _, q := range s.values(row) {
			if q != 0 {
				return false
			}
		}
	}
	if s.packed != nil {
		stride := len(s.packed) / s.capacity()
		for _, b := range s.packed[start*stride : end*stride] {
			if b != 0 {
				return false
			}
		}
		for _, l := range s.levels[start:end] {
			if l != 0 {
				return false
			}
		}
	}
	return true
}

// shardView is what one snapshot shows of a shard: its first rows, less the
// dead ones. It never changes once a snapshot is published. A view without a
// shard is an empty slot.
type shardView struct {
	*shard
	rows   int
	deaths int // set bits in dead
	dead   tombstones
	// arena holds the ids of the rows, one after the other. Its bytes are written
	// once and never again, so that strings may point to them: they live as long
	// as anybody holds one.
	arena []byte
	// Of the writer: the edit whose own the view is until it is published, and
	// whether the tombstones are.
	edit    uint64
	ownDead bool
}

// entry is what a row holds.
type entry struct {
	code     code.Code
	notAfter int64
	subject  scope.SubjectID
	template scope.TemplateID
	packed   []byte // of the prefilter, or nil: then put makes it
	level    uint8
}

// entry gives a row that the view shows alive. It stands in the memory of the
// shard.
func (v *shardView) entry(row int) entry {
	e := entry{code: v.code(row), notAfter: v.notAfter[row], subject: v.name(row), template: v.templates[row]}
	if v.packed != nil {
		e.packed, e.level = v.packedRow(row), v.levels[row]
	}
	return e
}

// put writes a row behind the last one, which no snapshot shows yet. The view
// must be the writer's own.
func (v *shardView) put(e *entry, f *filter) {
	row, block := v.rows, v.rows/blockRows
	copy(v.values(row), e.code.Q)
	v.norms[row] = e.code.Norm2
	v.notAfter[row] = e.notAfter
	v.templates[row] = e.template
	v.names[row] = namePlace(len(v.arena)<<6 | len(e.subject))
	v.arena = append(v.arena, e.subject...)
	fall(&v.leastNorm[block], e.code.Norm2)
	if v.packed != nil {
		level := e.level
		if e.packed != nil {
			copy(v.packedRow(row), e.packed)
		} else {
			level = f.pack(v.packedRow(row), e.code)
		}
		v.levels[row] = level
		fall(&v.leastLevel[block], int32(level))
	}
	if v.rows++; v.rows == v.capacity() {
		if v.capacity() == shardRows {
			v.arena = append(make([]byte, 0, len(v.arena)), v.arena...) // no more will come
		}
	}
}

// fall lowers the least of a block. Only the writer does, and seldom has to.
func fall(least *atomic.Int32, to int32) {
	if to < least.Load() {
		least.Store(to)
	}
}

// copyRows fills the view's new shard with the rows of its old one, in the same
// places. Dead rows stay behind: they are to be wiped, or being wiped now.
func (v *shardView) copyRows(old *shardView, f *filter) {
	rows := v.rows
	if old.deaths == 0 && v.packed == nil { // the usual growth of a small gallery
		copy(v.codes, old.codes)
		copy(v.norms, old.norms)
		copy(v.notAfter, old.notAfter)
		copy(v.templates, old.templates)
		copy(v.names, old.names)
		for block := range v.leastNorm {
			v.leastNorm[block].Store(old.leastNorm[block].Load())
		}
		return
	}
	v.rows, v.arena = 0, make([]byte, 0, len(old.arena)*v.capacity()/max(rows, 1))
	for row := range rows {
		if old.alive(row) {
			e := old.entry(row)
			v.put(&e, f)
			continue
		}
		v.rows++
	}
}

// name is the subject id of a row that the view shows alive.
func (v *shardView) name(row int) scope.SubjectID {
	place := v.names[row]
	b := v.arena[place>>6:][:place&63]
	return scope.SubjectID(unsafe.String(unsafe.SliceData(b), len(b)))
}

// nextRun gives the first run of live rows at or after from, start..end-1, of
// at most limit rows. start == end says that there is none.
func (v *shardView) nextRun(from, limit int) (start, end int) {
	if v.deaths == 0 {
		return from, min(from+limit, v.rows)
	}
	start = v.dead.next(from, v.rows, false)
	return start, v.dead.next(start, min(start+limit, v.rows), true)
}

// span gives the rows that a scan computes next, at most limit and all of one
// block; start == end says that there are none. Dead ones between them are
// computed as well, and may be in the middle of being wiped: their sums mean
// nothing and are not used. Going from one run of live rows to the next instead
// would be slow where rows die one by one: with every fourth row dead, a run is
// three rows, and the kernels want hundreds. Only builds that watch for races go
// so, since there the kernels in Go would be seen to read what is being wiped.
func (v *shardView) span(from, limit int) (start, end int) {
	start, end = v.piece(from, limit)
	return start, min(end, (start/blockRows+1)*blockRows)
}

// piece is span for scans that need not keep to the blocks.
func (v *shardView) piece(from, limit int) (start, end int) {
	if skipDead {
		return v.nextRun(from, limit)
	}
	return from, min(from+limit, v.rows)
}

// alive reports whether the view shows the row.
func (v *shardView) alive(row int) bool { return row < v.rows && !v.dead.has(row) }

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
