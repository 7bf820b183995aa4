package arrive

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// frameOf encodes a frame; padding below 0 means that it has none.
func frameOf(kind byte, stream uint32, payload []byte, padding int) []byte {
	var flags byte
	if padding >= 0 {
		flags = flagPadded
		payload = append(append([]byte{byte(padding)}, payload...), make([]byte, padding)...)
	}
	n := len(payload)
	b := binary.BigEndian.AppendUint32([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}, stream)
	return append(b, payload...)
}

// pieces calls f with b, cut at random.
func pieces(t *rapid.T, b []byte, f func([]byte)) {
	for len(b) > 0 {
		n := rapid.IntRange(1, min(len(b), 40)).Draw(t, "piece")
		f(b[:n])
		b = b[n:]
	}
}

// However the bytes are cut, each stream gets its DATA and nothing else.
func TestParser(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wire, want := []byte(preface), map[uint32][]byte{}
		last, open := uint32(0), uint32(0)
		for range rapid.IntRange(0, 20).Draw(t, "frames") {
			stream := rapid.Uint32Range(1, 4).Draw(t, "stream")
			payload := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "payload")
			kind := rapid.SampledFrom([]byte{typeData, typeHeaders, typeReset, 4, 6, 8, 9}).Draw(t, "kind")
			padding := -1
			if kind == typeData {
				want[stream] = append(want[stream], payload...)
				padding = rapid.IntRange(-1, 30).Draw(t, "padding")
			}
			if kind == typeHeaders {
				last, open = stream, stream
			}
			frame := frameOf(kind, stream|1<<31, payload, padding)
			if (kind == typeData || kind == typeHeaders) && rapid.Bool().Draw(t, "ends") {
				frame[4] |= endStream
				if stream == open {
					open = 0
				}
			}
			if kind == typeReset && stream == open {
				open = 0
			}
			wire = append(wire, frame...)
		}
		p, got := parser{skip: len(preface)}, map[uint32][]byte{}
		pieces(t, wire, func(b []byte) {
			p.read(b, func(stream uint32, b []byte) { got[stream] = append(got[stream], b...) })
		})
		for stream := range uint32(5) {
			if !bytes.Equal(got[stream], want[stream]) {
				t.Fatalf("stream %d: %d bytes, want %d", stream, len(got[stream]), len(want[stream]))
			}
		}
		if p.headers != last || p.open != open || p.skip != 0 || p.data != 0 || p.headed != 0 || p.padded {
			t.Fatalf("%+v, want headers of %d, %d open, and nothing begun", p, last, open)
		}
	})
}

func FuzzParser(f *testing.F) {
	f.Add(frameOf(typeData, 1, []byte("xyz"), 2))
	f.Add([]byte{0, 0, 1, typeData, flagPadded, 0, 0, 0, 1, 255, 0, 0, 0})
	f.Fuzz(func(t *testing.T, wire []byte) {
		var p parser
		n := 0
		p.read(wire, func(_ uint32, b []byte) { n += len(b) })
		if n > len(wire) || p.data < 0 || p.skip < 0 {
			t.Errorf("%d bytes of DATA in %d: %+v", n, len(wire), p)
		}
	})
}

type testWatch struct {
	*Watch
	conn *conn
	cut  []context.Context
	why  error
}

func newTestWatch(bound int64) *testWatch {
	w := &testWatch{}
	w.Watch = New(Options{Bound: bound, Limit: 10 * time.Second, Rate: 1000, Cut: func(ctx context.Context, why error) {
		w.cut, w.why = append(w.cut, ctx), why
	}})
	there, here := net.Pipe()
	there.Close()
	w.conn = w.newConn(here, here)
	return w
}

// begin begins a call as gRPC would.
func (w *testWatch) begin(owner string, kind Kind) *Call {
	c := new(Call)
	w.conn.parser.headers += 2
	w.Begin(context.Background(), c, &Peer{nil, w.conn}, owner, kind)
	c.Handle(context.Background())
	return c
}

// send sends bytes of a call's messages.
func (c *Call) send(b []byte) { c.conn.receive(c.id, b) }

func message(n int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(n)), make([]byte, n)...)
}

// A message is counted until it is handed over, whatever frames it comes in.
func TestCallCountsMessages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTestWatch(1 << 40)
		c := w.begin("fair", Kind{Streams: true})
		var wire []byte
		var sizes []int64
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 100), 0, 20).Draw(t, "messages") {
			wire, sizes = append(wire, message(n)...), append(sizes, int64(n)+5)
		}
		rest := rapid.IntRange(0, 50).Draw(t, "rest")
		wire = append(wire, message(60)[:rest]...)
		pieces(t, wire, func(b []byte) {
			c.send(b)
			for c.first < len(c.unread) && rapid.Bool().Draw(t, "taken") {
				c.Taken()
				sizes = sizes[1:]
			}
		})
		if !slices.Equal(c.unread[c.first:], sizes) {
			t.Fatalf("unread %v, want %v", c.unread[c.first:], sizes)
		}
		sum := int64(CallBytes + rest)
		for _, n := range sizes {
			sum += n
		}
		if w.Stats().Held != sum || c.unfinished() != (rest > 0) {
			t.Fatalf("%d bytes held, want %d; unfinished %t with %d bytes", w.Stats().Held, sum, c.unfinished(), rest)
		}
		c.End()
		c.End()
		if w.Stats().Held != 0 || len(w.conn.calls) != 0 {
			t.Fatalf("%d bytes held by nobody", w.Stats().Held)
		}
		c.send(wire) // too late: nobody counts it
		if w.Stats().Held != 0 {
			t.Fatalf("%d bytes held by nobody", w.Stats().Held)
		}
	})
}

// Slow links pass and trickles do not; and nobody is blamed for what the server
// does not read. The clock is given.
func TestStalls(t *testing.T) {
	const limit, rate = 10 * time.Second, 1000 // of newTestWatch
	for name, test := range map[string]struct {
		kind    Kind
		reading bool
		sent    int
		of      int
		after   time.Duration
		want    bool
	}{
		"headers only, early":                  {Kind{}, false, 0, 100, limit - 1, false},
		"headers only":                         {Kind{}, false, 0, 100, limit + 1, true},
		"headers only, with spared methods":    {Kind{Spared: true}, false, 0, 100, limit + 1, true},
		"half a message":                       {Kind{}, false, 50, 100, limit + time.Second, true},
		"a whole message":                      {Kind{}, false, 105, 100, time.Hour, false},
		"a byte a second":                      {Kind{}, false, 11, 100, limit + time.Second, true},
		"a large one, slowly":                  {Kind{}, false, 55_000, 1 << 20, time.Minute, false},
		"a large one, too slowly":              {Kind{}, false, 45_000, 1 << 20, time.Minute, true},
		"an idle stream":                       {Kind{Streams: true}, true, 0, 100, time.Hour, false},
		"half a message on a stream":           {Kind{Streams: true}, true, 50, 100, limit + time.Second, true},
		"half a message on one that is unread": {Kind{Streams: true}, false, 50, 100, time.Hour, false},
		"silence after a message on a stream":  {Kind{Streams: true}, true, 105, 100, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestWatch(1 << 40)
			c := w.begin("fair", test.kind)
			if test.reading {
				c.Reading()
			}
			c.send(message(test.of)[:test.sent])
			since := cmp.Or(c.since, w.now())
			if got := c.stalls(since + int64(test.after)); got != test.want {
				t.Errorf("stalls: %t", got)
			}
			stalled, _ := w.conn.look(since + int64(test.after))
			if len(stalled) == 1 != test.want {
				t.Errorf("%d cut off", len(stalled))
			}
			if _, useless := w.conn.look(since); useless != test.want {
				t.Errorf("the connection is of no use: %t", useless)
			}
		})
	}
}

// A stream that is read again after a pause has its whole time.
func TestStallCountsFromReading(t *testing.T) {
	w := newTestWatch(1 << 40)
	c := w.begin("fair", Kind{Streams: true})
	c.Reading()
	c.send(message(100))
	c.send(message(1000)[:500])
	c.Taken() // the first: the second is not waited for
	if c.stalls(c.begun + int64(time.Hour)) {
		t.Error("it stalls while nobody reads")
	}
	before := c.since
	c.Reading()
	if c.since == 0 || c.since < before || c.from != 500 {
		t.Errorf("waited for since %d, from %d bytes on", c.since, c.from)
	}
	if !c.stalls(c.since + int64(11*time.Second)) {
		t.Error("what came before it was read counts as progress")
	}
}

// Too much on its way: who holds the most is refused and cut off, the oldest
// first, and others and what is spared are not.
func TestRelieve(t *testing.T) {
	const bound = 16 << 20
	w := newTestWatch(bound)
	half := func(c *Call, n int) *Call { c.send(message(2 * n)[:n]); return c }
	idle := w.begin("greedy", Kind{Streams: true})
	erasure := half(w.begin("greedy", Kind{Spared: true}), 100)
	oldest := half(w.begin("greedy", Kind{}), 5<<20)
	second := half(w.begin("greedy", Kind{}), 5<<20)
	if err := errors.Join(w.Room("greedy"), w.Room("fair")); err != nil {
		t.Fatal(err)
	}
	other := half(w.begin("fair", Kind{}), 4<<20)
	huge := half(w.begin("greedy", Kind{Spared: true}), 9<<19)
	if w.Stats().Held <= bound || len(w.pressed) != 1 {
		t.Fatalf("%d bytes held", w.Stats().Held)
	}
	if err := w.Room("greedy"); !errors.Is(err, ErrFull) {
		t.Errorf("the one that holds the most: %v", err)
	}
	if err := errors.Join(w.Room("fair"), w.Room("new")); err != nil {
		t.Errorf("others: %v", err)
	}
	w.relieve()
	if !oldest.over || second.over || other.over || erasure.over || idle.over || huge.over || len(w.cut) != 1 || !errors.Is(w.why, ErrFull) {
		t.Errorf("cut off: oldest %t, second %t, other's %t, erasure %t, idle %t; %d in all, %v", oldest.over, second.over, other.over, erasure.over, idle.over, len(w.cut), w.why)
	}
	// And where it goes on: the rest of the greedy one's, the erasure not.
	w.opt.Bound = 7 << 20
	w.relieve()
	if !second.over || !huge.over || other.over || erasure.over {
		t.Errorf("cut off: second %t, long erasure %t, other's %t, erasure %t", second.over, huge.over, other.over, erasure.over)
	}
	w.opt.Bound = 1
	w.relieve()
	if !idle.over || !other.over || erasure.over {
		t.Errorf("cut off: idle %t, other's %t, erasure %t", idle.over, other.over, erasure.over)
	}
	w.relieve() // nobody is left that may be cut off
	erasure.End()
	if w.Stats().Held != 0 || w.Stats().Crowded != int64(len(w.cut)) {
		t.Errorf("%+v, %d cut off", w.Stats(), len(w.cut))
	}
}

// A connection whose client leaves the last call that it began open, after that was
// refused or is over, is of no use after the limit, whether it sends more of the
// message or nothing. One that is idle is, and so is one that goes on calling and is
// refused every time. What is read is given; whether a call is under way too.
func TestLingeringConnections(t *testing.T) {
	const ended = endStream
	frame := func(kind byte, stream uint32, flags byte) []byte {
		b := frameOf(kind, stream, make([]byte, 4), -1)
		b[4] = flags
		return b
	}
	half := func(stream uint32) []byte {
		return append(frame(typeHeaders, stream, 0), frame(typeData, stream, 0)...)
	}
	whole := func(stream uint32) []byte {
		return append(frame(typeHeaders, stream, 0), frame(typeData, stream, ended)...)
	}
	for name, test := range map[string]struct {
		first   []byte
		each    func(look int) []byte // before every look
		calling bool
		want    bool
	}{
		"nothing":                        {},
		"headers only":                   {first: frame(typeHeaders, 1, 0), want: true},
		"half a message":                 {first: half(1), want: true},
		"half of one, beside a call":     {first: half(1), calling: true},
		"a trickle":                      {first: half(1), each: func(int) []byte { return frame(typeData, 1, 0) }, want: true},
		"a whole message":                {first: whole(1)},
		"a call without a message":       {first: frame(typeHeaders, 1, ended)},
		"half a message, and trailers":   {first: append(half(1), frame(typeHeaders, 1, ended)...)},
		"half a message, and a reset":    {first: append(half(1), frame(typeReset, 1, 0)...)},
		"another's reset":                {first: append(half(3), frame(typeReset, 1, 0)...), want: true},
		"a whole one after half of one":  {first: append(half(1), whole(3)...)},
		"refused calls without an end":   {first: half(1), each: func(look int) []byte { return half(uint32(2*look + 3)) }},
		"whole messages of what is over": {first: whole(1), each: func(int) []byte { return frame(typeData, 1, 0) }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestWatch(1 << 20)
			there, here := net.Pipe()
			c := w.newConn(here, here)
			defer c.Close()
			c.parser.skip = 0
			if test.calling {
				c.begin(&Call{watch: w.Watch, conn: c, owner: w.owner("fair"), id: 99, ctx: t.Context()})
			}
			read := func(wire []byte) {
				go there.Write(wire)
				for n := 0; n < len(wire); {
					k, err := c.Read(make([]byte, len(wire)))
					if err != nil {
						t.Fatal(err)
					}
					n += k
				}
			}
			read(test.first)
			for i := range 3 * looksPerLimit {
				if test.each != nil {
					read(test.each(i))
				}
				_, useless := c.look(0)
				if useless != (test.want && i > looksPerLimit) {
					t.Fatalf("look %d: of no use %t", i, useless)
				}
			}
		})
	}
}

// A call that gRPC ended before any handler had it does not count for ever.
func TestEndedWithoutHandler(t *testing.T) {
	w := newTestWatch(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	w.Begin(ctx, new(Call), &Peer{nil, w.conn}, "fair", Kind{})
	cancel()
	w.look()
	if w.Stats().Held != 0 {
		t.Errorf("%d bytes held", w.Stats().Held)
	}
	w.begin("fair", Kind{})
	w.conn.Close()
	if w.Stats().Held != 0 || len(w.conns) != 0 {
		t.Errorf("%d bytes held after the connection was closed", w.Stats().Held)
	}
}

// The zero Call and connections of others are not watched.
func TestNotWatched(t *testing.T) {
	var c Call
	New(Options{Limit: time.Second}).Begin(context.Background(), &c, &Peer{nil, newTestWatch(1).conn}, "fair", Kind{})
	c.Handle(context.Background())
	c.Reading()
	c.Taken()
	c.End()
	if c.conn != nil {
		t.Error("watched by two")
	}
}

func TestDefaultBound(t *testing.T) {
	if b := DefaultBound(); b < leastBound || b > mostBound {
		t.Errorf("%d bytes", b)
	}
	if n := number("max"); n < 1<<60 {
		t.Errorf("no limit is %d", n)
	}
}

// A call and its message of 2 KB in one frame.
func BenchmarkCall(b *testing.B) {
	w := newTestWatch(1 << 40)
	body := frameOf(typeData, 0, message(2000), -1)
	b.ReportAllocs()
	var c Call
	for b.Loop() {
		c = Call{}
		w.conn.parser.headers += 2
		w.Begin(context.Background(), &c, &Peer{nil, w.conn}, "fair", Kind{})
		c.Handle(context.Background())
		binary.BigEndian.PutUint32(body[5:], c.id)
		w.conn.parser.skip = 0
		w.conn.parser.read(body[:frameHeader], w.conn.receive)
		w.conn.parser.read(body[frameHeader:], w.conn.receive)
		c.Taken()
		c.End()
	}
}
