package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/menshen-io/menshen/bench/target"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// Reply is how a call ended.
type Reply struct {
	Code    codes.Code
	Outcome pb.Outcome // of an OK
}

// Ender is told the end of a call, once, from any goroutine. It must not block.
type Ender interface{ Ended(Reply) }

// Caller sends calls and does not wait for their ends; lane spreads them over
// connections, tenant is the index of who asks.
type Caller interface {
	// Send begins a call that ends by itself at its deadline at the latest. It is
	// called from one goroutine at a time and does not block.
	Send(lane, tenant int, r *target.Request, deadline time.Time, to Ender)
	// Flush lets what was sent leave: one system call for each connection instead
	// of one for each call.
	Flush()
}

// Lanes are connections to a server. Safe for concurrent use.
type Lanes struct {
	lanes []*lane
	each  int // lanes of a tenant
	stop  context.CancelFunc
	watch sync.WaitGroup
}

// NewLanes opens count connections for each gate key: tenants do not share one,
// as gates of different operators do not. ctx bounds the connecting only.
func NewLanes(ctx context.Context, d *target.Dialer, count int, keys ...string) (*Lanes, error) {
	run, stop := context.WithCancel(context.Background())
	l := &Lanes{each: count, stop: stop}
	for i := range count * len(keys) {
		one := &lane{dialer: d, key: keys[i/count]}
		if err := one.connect(ctx); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.lanes = append(l.lanes, one)
	}
	l.watch.Go(func() { l.expire(run) })
	return l, nil
}

// Close ends the connections.
func (l *Lanes) Close() error {
	l.stop()
	l.watch.Wait()
	for _, one := range l.lanes {
		one.close()
	}
	return nil
}

// Send implements Caller.
func (l *Lanes) Send(lane, tenant int, r *target.Request, deadline time.Time, to Ender) {
	l.of(lane, tenant).send(&call{method: r.Method, body: r.Body, deadline: deadline, to: to})
}

// Flush implements Caller.
func (l *Lanes) Flush() {
	for _, one := range l.lanes {
		one.flush()
	}
}

func (l *Lanes) of(lane, tenant int) *lane { return l.lanes[tenant*l.each+lane%l.each] }

// Call sends one request and waits for its end, or for ctx's. It may be called
// from many goroutines.
func (l *Lanes) Call(ctx context.Context, lane, tenant int, r *target.Request) Reply {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(time.Minute)
	}
	end := make(waiting, 1)
	one := l.of(lane, tenant)
	one.send(&call{method: r.Method, body: r.Body, deadline: deadline, to: end})
	one.flush()
	select {
	case reply := <-end:
		return reply
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return Reply{Code: codes.Canceled}
		}
		return Reply{Code: codes.DeadlineExceeded}
	}
}

// waiting is an Ender for one who waits; it has room for one.
type waiting chan Reply

func (w waiting) Ended(r Reply) { w <- r }

// expireEvery is how exactly deadlines are kept: they are seconds long.
const expireEvery = 10 * time.Millisecond

func (l *Lanes) expire(ctx context.Context) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, one := range l.lanes {
				one.current().expire(now)
			}
		case <-ctx.Done():
			return
		}
	}
}

// lane is a connection, and the one after it when it is lost.
type lane struct {
	dialer *target.Dialer
	key    string

	mu      sync.Mutex
	wire    *wire
	closed  bool
	dialing bool
}

func (l *lane) connect(ctx context.Context) error {
	conn, err := l.dialer.Connect(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", l.dialer.Address, err)
	}
	w := newWire(conn, l.dialer.Address, l.key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		w.close()
		return nil
	}
	l.wire = w
	return nil
}

func (l *lane) current() *wire {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wire
}

func (l *lane) send(c *call) {
	if !l.current().send(c) {
		c.to.Ended(Reply{Code: codes.Unavailable})
		l.reconnect()
	}
}

func (l *lane) flush() { l.current().flush() }

// Between two attempts to connect again.
const (
	reconnectPause   = 100 * time.Millisecond
	reconnectTimeout = 5 * time.Second
)

// reconnect takes the place of a lost connection, in the background.
func (l *lane) reconnect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dialing || l.closed {
		return
	}
	l.dialing = true
	go func() {
		time.Sleep(reconnectPause)
		ctx, cancel := context.WithTimeout(context.Background(), reconnectTimeout)
		defer cancel()
		_ = l.connect(ctx) // the next call tries again
		l.mu.Lock()
		l.dialing = false
		l.mu.Unlock()
	}()
}

func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	w := l.wire
	l.mu.Unlock()
	w.close()
}
