package rpc

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Bound is a listener that holds a bounded number of connections, in all and
// from one address. What is too many is closed at once, before a byte of it is
// read: who is turned away tries again with growing pauses, as every gRPC client
// does. A connection whose other side takes nothing for DefaultStallLimit is closed.
// 0 means no bound.
func Bound(l net.Listener, all, each int, log *slog.Logger) net.Listener {
	return &boundListener{Listener: l, all: all, each: each, stall: DefaultStallLimit, from: make(map[netip.Addr]int),
		log: log, refused: &refusals{log: log, now: time.Now}}
}

type boundListener struct {
	net.Listener
	all, each int
	stall     time.Duration // of a Write
	untaken   time.Duration // of what was written
	log       *slog.Logger
	refused   *refusals

	mu   sync.Mutex
	open int
	from map[netip.Addr]int
}

// Accept returns the next connection that there is room for.
func (l *boundListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := addressOf(conn)
		if why := l.enter(from); why != "" {
			conn.Close()
			if silent, speak := l.refused.admit(); speak {
				l.log.WarnContext(context.Background(), "connection refused", "reason", why, "from", conn.RemoteAddr().String(), "not_logged_before", silent)
			}
			continue
		}
		boundUntaken(conn, l.untaken)
		return &boundConn{Conn: conn, stall: l.stall, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
	}
}

// enter counts a connection, or says why it must not.
func (l *boundListener) enter(from netip.Addr) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.all > 0 && l.open >= l.all:
		return "TOO_MANY_CONNECTIONS"
	case l.each > 0 && from.IsValid() && l.from[from] >= l.each:
		return "TOO_MANY_CONNECTIONS_OF_ADDRESS"
	}
	l.open++
	l.from[from]++
	return ""
}

func (l *boundListener) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.from[from]--; l.from[from] == 0 {
		delete(l.from, from)
	}
}

// addressOf is the peer's address; of IPv6 the network of 64 bits, which one
// peer has to itself. Invalid where the transport has none.
func addressOf(conn net.Conn) netip.Addr {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.Is6() {
		network, _ := ip.Prefix(64) // 64 is in range
		return network.Addr()
	}
	return ip
}

// boundConn gives its place back when it is closed, and is closed when its
// other side does not read.
type boundConn struct {
	net.Conn
	leave    func()
	stall    time.Duration
	deadline atomic.Int64 // Unix seconds
}

// Write fails when the other side takes nothing for stall. The deadline is
// renewed at most once a second, so that it costs nothing.
func (c *boundConn) Write(b []byte) (int, error) {
	now := time.Now()
	if next := now.Add(c.stall); next.Unix() > c.deadline.Load() {
		c.deadline.Store(next.Unix())
		if err := c.SetWriteDeadline(next.Add(time.Second)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// Close closes the connection.
func (c *boundConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
