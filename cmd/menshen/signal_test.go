package main

import (
	"context"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// TestSignals ends servers under load: SIGTERM lets calls finish, the drain
// timeout cuts off what does not, and a second signal does not wait.
func TestSignals(t *testing.T) {
	for _, tc := range []struct {
		name    string
		drain   string
		stuck   bool // a client that takes no answers keeps a call from ending
		signals int
		code    int // -1: ended by the signal itself
	}{
		{"an idle stream is ended", "1h", false, 1, 0},
		{"a stuck call is cut off", "300ms", true, 1, 0},
		{"a second signal forces", "1h", true, 2, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := newVictim(t, runtimeLibrary(t))
			v.extra = []string{"--drain-timeout", tc.drain}
			t.Cleanup(v.disconnect)
			v.start()
			v.setUp()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream, err := menshenv1.NewEnrollmentServiceClient(v.conns[menshenv1.Role_ROLE_ENROLLER]).BulkEnroll(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&menshenv1.BulkEnrollRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			if tc.stuck {
				var sent atomic.Int64
				go func() {
					for stream.Send(&menshenv1.BulkEnrollRequest{}) == nil {
						sent.Add(1)
					}
				}()
				for before := int64(-1); before != sent.Load(); { // until the windows are full
					before = sent.Load()
					time.Sleep(time.Second)
				}
			}
			ended := make(chan error, 1)
			go func() { ended <- v.cmd.Wait() }()
			for i := range tc.signals {
				if i > 0 {
					select {
					case err := <-ended:
						t.Fatalf("it did not wait for the call: %v", err)
					case <-time.After(500 * time.Millisecond):
					}
				}
				if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			tooLong, again := time.After(2*time.Minute), time.NewTicker(2*time.Second)
			defer again.Stop()
			for over := false; !over; {
				select {
				case err := <-ended:
					if got := v.cmd.ProcessState.ExitCode(); got != tc.code {
						t.Errorf("ended with %d: %v\n%s", got, err, v.stderr)
					}
					over = true
				case <-again.C:
					if tc.signals > 1 { // two that come at once arrive as one
						_ = v.cmd.Process.Signal(syscall.SIGTERM)
					}
				case <-tooLong:
					_ = v.cmd.Process.Signal(os.Kill)
					<-ended
					t.Fatalf("it did not end:\n%s", v.stderr)
				}
			}
		})
	}
}
