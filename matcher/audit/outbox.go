package audit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-io/menshen/index/scope"
)

// Outbox is where acts wait that are durable already, together with the changes that
// they tell of, and are still to be written here. *store.Store is the real one.
type Outbox interface {
	// EachPost shows the parcels that were not settled, oldest first. What was in a
	// parcel once is in it, in the same order, until it is settled.
	EachPost(func(parcel uint64, posts [][]byte))
	// Settle says that the log has all of these parcels, durably.
	Settle(parcels []uint64)
}

// outbox is what the log knows of its Outbox.
type outbox struct {
	from atomic.Pointer[Outbox]

	collecting sync.Mutex      // one collection at a time; guards what follows
	written    map[post]bool   // of parcels that are not settled yet
	stuck      map[string]bool // chains that could not be written, for the log of the service

	waiting atomic.Int64 // acts that could not be written at the last collection
}

// post is the place of an act in the outbox.
type post struct {
	parcel uint64
	at     int
}

// Attach makes o the outbox of the log and writes down what waits in it: what a
// crash kept from being written, once, also where the crash fell behind the writing. From
// then on acts are taken out of it every second or so, and before anything
// is read, signed or closed, and before other acts are written, so that acts stand in
// the order in which they were done. What cannot be written stays where it is. Once
// a log. Errors: ErrDamaged, those of reading.
func (l *Log) Attach(ctx context.Context, o Outbox) error {
	b := &l.outbox
	b.collecting.Lock()
	defer b.collecting.Unlock()
	b.written, b.stuck = map[post]bool{}, map[string]bool{}
	if err := l.known(ctx, o); err != nil {
		return fmt.Errorf("take over the acts that wait: %w", err)
	}
	b.from.Store(&o)
	l.collectLocked()
	return nil
}

// known finds those of the waiting acts that the log has already. The caller holds
// collecting.
func (l *Log) known(ctx context.Context, o Outbox) (err error) {
	type deed struct {
		scope scope.ScopeID
		epoch uint64
	}
	waiting, after := map[string]map[deed]post{}, map[string]uint64{}
	o.EachPost(func(parcel uint64, posts [][]byte) {
		for i, b := range posts {
			d, derr := parseDraft(b)
			if derr != nil {
				err = derr
				return
			}
			name := ActsOf(d.tenant)
			if waiting[name] == nil {
				waiting[name], after[name] = map[deed]post{}, math.MaxUint64
			}
			waiting[name][deed{d.record.Scope, d.record.Act.Epoch}] = post{parcel, i}
			after[name] = min(after[name], d.after)
		}
	})
	if err != nil {
		return err
	}
	for name, deeds := range waiting {
		q := Query{Chain: name, After: after[name], Kinds: []Kind{KindAct}}
		if q.After > l.chain(name).position() {
			q.After = 0 // the chain was set aside and begun anew
		}
		for r, err := range l.scan(ctx, q, q.wants) {
			if err != nil {
				return err
			}
			if p, ok := deeds[deed{r.Scope, r.Act.Epoch}]; ok && r.Act.Epoch > 0 {
				l.outbox.written[p] = true
			}
		}
	}
	return nil
}

// Collect writes what waits in the outbox at once, durably, instead of within a
// second. What a chain does not take waits on: its stuck says why, and the service's
// log is told.
func (l *Log) Collect() {
	if l.outbox.from.Load() == nil {
		return
	}
	l.outbox.collecting.Lock()
	defer l.outbox.collecting.Unlock()
	l.collectLocked()
}

// collected are the acts of one chain in a collection.
type collected struct {
	chain   *chain
	records []*Record
	posts   []post // of the records
	durable int    // so many of them the disk has
	err     error  // why not all
}

// write writes the records, as many at a time as decisions, and syncs once.
func (of *collected) write(now time.Time) {
	for some := range slices.Chunk(of.records, batchDecisions) {
		if of.err = of.chain.append(now, some, false); of.err != nil {
			break
		}
		of.durable += len(some)
	}
	if _, err := of.chain.head(); err != nil {
		of.durable, of.err = 0, err
	}
}

func (l *Log) collectLocked() {
	b := &l.outbox
	var parcels []uint64
	sizes := map[uint64]int{}
	byChain := map[scope.TenantID]*collected{}
	(*b.from.Load()).EachPost(func(parcel uint64, posts [][]byte) {
		parcels = append(parcels, parcel)
		sizes[parcel] = len(posts)
		for i, bytes := range posts {
			if len(b.written) > 0 && b.written[post{parcel, i}] {
				continue
			}
			d, err := parseDraft(bytes)
			if err != nil { // Attach has read what other servers wrote
				panic(err)
			}
			of := byChain[d.tenant]
			if of == nil {
				of = &collected{chain: l.chain(ActsOf(d.tenant))}
				byChain[d.tenant] = of
			}
			of.records, of.posts = append(of.records, d.record), append(of.posts, post{parcel, i})
		}
	})
	if len(parcels) == 0 {
		return
	}
	l.opt.failpoint("audit/outbox/taken")
	now := l.opt.Clock()
	var wg sync.WaitGroup
	slots := make(chan struct{}, flushers)
	for _, of := range byChain {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			of.write(now)
		})
	}
	wg.Wait()
	l.opt.failpoint("audit/outbox/written")
	left := map[uint64]bool{}
	waiting := 0
	for _, of := range byChain {
		for _, p := range of.posts[of.durable:] {
			left[p.parcel] = true
			waiting++
		}
		l.noteStuck(of)
	}
	b.waiting.Store(int64(waiting))
	var done []uint64
	for _, parcel := range parcels {
		if left[parcel] {
			continue
		}
		done = append(done, parcel)
		if len(b.written) > 0 {
			for i := range sizes[parcel] {
				delete(b.written, post{parcel, i})
			}
		}
	}
	for _, of := range byChain {
		for _, p := range of.posts[:of.durable] {
			if left[p.parcel] {
				b.written[p] = true // others keep the parcel
			}
		}
	}
	(*b.from.Load()).Settle(done)
	l.opt.failpoint("audit/outbox/settled")
}

// noteStuck remembers whether a chain took its acts, and tells when that changes.
func (l *Log) noteStuck(of *collected) {
	name := of.chain.name
	if of.err == nil {
		of.chain.stuck.Store(nil)
		if l.outbox.stuck[name] {
			l.opt.Logger.Info("acts that had waited in the records were written to the audit log", "chain", name, "written", len(of.records))
		}
		delete(l.outbox.stuck, name)
		return
	}
	of.chain.stuck.Store(&of.err)
	if !l.outbox.stuck[name] {
		l.outbox.stuck[name] = true
		l.opt.Logger.Error("acts cannot be written to the audit log; they wait in the records", "chain", name, "waiting", len(of.records), "error", of.err.Error())
	}
}

// Draft is an act on its way to the outbox: what its record will hold, and no more.
// Only a server reads it, before the act is in the log, so that it may change
// with the version in its first byte. What the acts of a bulk enrolment have in common
// stands first, which the store keeps once:
//
//	version; tenant, scope, credential, role, action, resource, outcome, each with its
//	length; 8 bytes of the chain's position before, 8 of seconds, 4 of nanoseconds;
//	subject, request id; 8 bytes of epoch
type Draft []byte

const (
	draftVersion = 1
	draftFixed   = 1 + 8 + 8 + 4 + 8
)

// errDraft: a post that this server does not know.
var errDraft = errors.New("an act that waits in the records was left by a newer server, or is damaged; start that server once more and stop it in order")

// Draft makes an act ready for the outbox, as of now. Nil where it cannot wait
// there, because no outbox is attached or too much waits in it already: Append or Insist
// takes such an act. Error: ErrInvalid.
func (l *Log) Draft(e Event) (Draft, error) {
	if l.outbox.from.Load() == nil || l.outbox.waiting.Load() >= maxLate {
		return nil, nil
	}
	r, err := e.record(l.opt.Clock(), l.opt.Pseudonyms)
	if err != nil {
		return nil, err
	}
	a := r.Act
	if e.Tenant == "" || e.Scope == "" || a.Suppressed > 0 {
		return nil, nil
	}
	d := append(make(Draft, 0, 256), draftVersion)
	for _, s := range [...]string{string(e.Tenant), string(r.Scope), a.Credential, a.Role, a.Action, a.Resource, a.Outcome} {
		d = append(binary.AppendUvarint(d, uint64(len(s))), s...)
	}
	d = binary.BigEndian.AppendUint64(d, l.chain(ActsOf(e.Tenant)).position())
	d = binary.BigEndian.AppendUint64(d, uint64(r.Time.Unix()))
	d = binary.BigEndian.AppendUint32(d, uint32(r.Time.Nanosecond()))
	for _, s := range [...]string{string(a.Subject), a.RequestID} {
		d = append(binary.AppendUvarint(d, uint64(len(s))), s...)
	}
	return binary.BigEndian.AppendUint64(d, 0), nil
}

// At says which epoch of its scope the change made, above 0. It is what tells the
// act from every other one of the scope.
func (d Draft) At(epoch uint64) { binary.BigEndian.PutUint64(d[len(d)-8:], epoch) }

// draft is a Draft that was read.
type draft struct {
	tenant scope.TenantID
	record *Record
	after  uint64 // the chain's position before
}

func parseDraft(b []byte) (draft, error) {
	if len(b) < draftFixed || b[0] != draftVersion {
		return draft{}, errDraft
	}
	all := struct {
		Record
		Act
	}{}
	r, a := &all.Record, &all.Act
	r.Kind, r.Act = KindAct, a
	d := draft{record: r}
	p := draftParser{string(b[1:])} // the one copy, of which all texts are parts
	d.tenant, r.Scope = scope.TenantID(p.text()), scope.ScopeID(p.text())
	a.Credential, a.Role, a.Action, a.Resource, a.Outcome = p.text(), p.text(), p.text(), p.text(), p.text()
	d.after = p.number(8)
	seconds := p.number(8)
	r.Time = time.Unix(int64(seconds), int64(p.number(4))).UTC()
	a.Subject, a.RequestID = Pseudonym(p.text()), p.text()
	a.Epoch = p.number(8)
	if p.rest != "" || a.Epoch == 0 || d.tenant.Validate() != nil {
		return draft{}, errDraft
	}
	return d, nil
}

// draftParser takes a Draft apart; at its end it gives nothing, so that the epoch is
// missing.
type draftParser struct{ rest string }

func (p *draftParser) text() string {
	var b [binary.MaxVarintLen64]byte
	n, size := binary.Uvarint(b[:copy(b[:], p.rest)])
	if size <= 0 || n > uint64(len(p.rest)-size) {
		p.rest = ""
		return ""
	}
	s := p.rest[size : size+int(n)]
	p.rest = p.rest[size+int(n):]
	return s
}

func (p *draftParser) number(bytes int) (n uint64) {
	if len(p.rest) < bytes {
		p.rest = ""
		return 0
	}
	for i := range bytes {
		n = n<<8 | uint64(p.rest[i])
	}
	p.rest = p.rest[bytes:]
	return n
}
