//go:build !linux

package rpc

import (
	"net"
	"time"
)

// boundUntaken does nothing where the system has no such bound: pings alone find out.
func boundUntaken(net.Conn, time.Duration) {}
