package admission

// Ticket is the right to work. The zero Ticket holds nothing. A Ticket belongs
// to one call and is not copied while it is in use.
type Ticket struct {
	limiter *Limiter
	flow    *flow
	cell    cell
	weight  int64
	prior   int64 // ns, by the default of its kind
	cost    int64 // ns, as estimated
	spent   int64 // core time before the weight changed
	since   int64 // since when it has this weight
	bytes   int64
}

// Lighten tells that what is left is a search that the workers of the index
// share: others may begin.
func (t *Ticket) Lighten() {
	l := t.limiter
	if l == nil || t.weight == shared {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	t.spent += (now - t.since) * t.weight / core
	t.since = now
	l.running -= t.weight - shared
	t.flow.running -= t.weight - shared
	t.weight = shared
	l.dispatch(now)
}

// Done gives the ticket back. err is how the work ended: what failed says
// nothing about what such work takes. Done may be called again.
func (t *Ticket) Done(err error) { t.end(err == nil) }

func (t *Ticket) end(learn bool) {
	l := t.limiter
	if l == nil {
		return
	}
	l.mu.Lock()
	l.finish(t, l.now(), learn)
	l.mu.Unlock()
	t.limiter = nil
}
