package load

import "golang.org/x/sys/unix"

// hungUp tells of each client whether the server has closed its connection. It
// reads nothing.
func hungUp(clients []*stalledClient) []bool {
	fds := make([]unix.PollFd, len(clients))
	for i, c := range clients {
		fds[i].Fd = -1 // is skipped
		if raw, err := c.conn.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP} })
		}
	}
	out := make([]bool, len(clients))
	if _, err := unix.Poll(fds, 0); err != nil {
		return out // interrupted: the next look tells
	}
	for i, p := range fds {
		out[i] = p.Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	}
	return out
}
