package admission

// Announcement says that a call was let through when its headers came: its work
// will stand before the limiter in a moment. The zero value announces nothing.
type Announcement struct {
	limiter *Limiter
	flow    *flow
	cost    int64
	slot    int64
}

// Announce decides about a call by its headers, before anything of its message
// is read or allocated: it is refused when it would only be refused later. It
// never blocks and takes well under a microsecond. Errors: *Overload.
func (l *Limiter) Announce(tenant string) (Announcement, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	f := l.flow(flowKey{tenant, false})
	if l.waitOf(f, now, false) > l.boundOf(f) {
		return Announcement{}, l.refuse(f, f.usual, now, Queue)
	}
	slot := l.coming.add(now, f.usual)
	f.coming.add(now, f.usual)
	return Announcement{l, f, f.usual, slot}, nil
}

// Arrived takes the announcement back: the call is here, and asks by itself.
func (a Announcement) Arrived() {
	if a.limiter == nil {
		return
	}
	a.limiter.mu.Lock()
	defer a.limiter.mu.Unlock()
	a.limiter.coming.take(a.slot, a.cost)
	a.flow.coming.take(a.slot, a.cost)
}

// incoming sums up what was announced in the last moments. What has not arrived
// by then is not coming soon: its sender stalls or trickles, and nobody is
// refused because of that.
type incoming struct {
	slot [comingSlots]int64 // the slot of time that the sum is of
	cost [comingSlots]int64
}

const (
	comingSlots = 4
	comingWidth = 25_000_000 // ns
)

func (c *incoming) add(now, cost int64) (slot int64) {
	slot = now / comingWidth
	i := slot % comingSlots
	if c.slot[i] != slot {
		c.slot[i], c.cost[i] = slot, 0
	}
	c.cost[i] += cost
	return slot
}

func (c *incoming) take(slot, cost int64) {
	if i := slot % comingSlots; c.slot[i] == slot {
		c.cost[i] -= cost
	}
}

func (c *incoming) sum(now int64) (sum int64) {
	for i, slot := range c.slot {
		if now/comingWidth-slot < comingSlots {
			sum += c.cost[i]
		}
	}
	return sum
}
