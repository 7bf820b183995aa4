package rpc

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// boundUntaken has the system end a connection whose other side does not acknowledge
// what was sent, or has no room for it, for so long (TCP_USER_TIMEOUT): reading from it
// fails then, and after Close nothing of it is kept for longer either. Where that
// cannot be set, as on a socket that is not TCP, pings alone find out.
func boundUntaken(conn net.Conn, after time.Duration) {
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
			})
		}
	}
}
