package rpc

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// What a client leaves unread may be so little that no Write ever waits for it: the
// connection ends all the same, and with it what the system keeps.
func TestLittleThatIsNotTaken(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Bound(plain, 0, 0, slog.New(slog.DiscardHandler)).(*boundListener)
	l.untaken = 300 * time.Millisecond
	defer l.Close()
	// The client's window is closed from the beginning on: as small as can be, and full.
	client, err := (&net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1) })
	}}).Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, 32<<10)); err != nil {
		t.Fatalf("a write that the system takes: %v", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1))
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
		t.Fatalf("somebody who takes nothing is still there: %v", err)
	}
}
