package matcher

import (
	"sync"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/scope"
)

// erasures remembers which subjects of a scope lost templates lately. A search
// that began before an erasure must not answer with what was erased, and asking
// whether the template is there does not tell: the id may have been given to
// somebody else meanwhile, whose templates carry the same numbers.
//
// The zero erasures is ready. Safe for concurrent use.
type erasures struct {
	mu   sync.Mutex
	seq  uint64
	last [64]scope.SubjectID // the erasure number n is at n % len(last)
}

// mark is the present; taken before a search.
func (e *erasures) mark() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seq
}

// note records the subjects of a change. It is called after the gallery has the
// change and before anybody is told.
func (e *erasures) note(removes []index.Remove) {
	if len(removes) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, r := range removes {
		if i > 0 && r.Subject == removes[i-1].Subject {
			continue
		}
		e.last[e.seq%uint64(len(e.last))] = r.Subject
		e.seq++
	}
}

// touched reports whether the subject lost a template since the mark, or
// whether so many did that it cannot be told.
func (e *erasures) touched(mark uint64, id scope.SubjectID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seq-mark > uint64(len(e.last)) {
		return true
	}
	for n := mark; n < e.seq; n++ {
		if e.last[n%uint64(len(e.last))] == id {
			return true
		}
	}
	return false
}
