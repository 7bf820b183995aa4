package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/cmd/menshen/internal/client"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// TestRollingRestart restarts two servers in turn while gates ask and a desk
// reads: no call fails.
func TestRollingRestart(t *testing.T) {
	first := newVictim(t, runtimeLibrary(t))
	t.Cleanup(first.disconnect)
	first.start()
	first.setUp()
	face := first.face(rand.New(rand.NewPCG(1, 1)))
	enroll := menshenv1.NewEnrollmentServiceClient(first.conns[menshenv1.Role_ROLE_ENROLLER])
	_, err := enroll.Enroll(t.Context(), &menshenv1.EnrollRequest{Parent: first.scope, SubjectId: "v-1", Probes: []*menshenv1.Probe{face},
		Consent: &menshenv1.Consent{Reference: "c", NoticeVersion: "1", GiveTime: timestamppb.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	first.stop()

	// A second server with the same data, so that the same keys open it.
	second := newVictim(t, first.library)
	t.Cleanup(second.disconnect)
	if err := os.CopyFS(filepath.Join(second.dir, "data"), os.DirFS(filepath.Join(first.dir, "data"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(second.dir, "data", "root.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	servers := []*victim{first, second}
	var addresses []resolver.Address
	doors := map[*victim]*door{}
	for _, v := range servers {
		v.extra = []string{"--drain-delay", "100ms"}
		v.start()
		doors[v] = newDoor(t)
		doors[v].leadTo(v.where)
		addresses = append(addresses, resolver.Address{Addr: doors[v].address()})
	}
	both := manual.NewBuilderWithScheme("passthrough")
	both.InitialState(resolver.State{Addresses: addresses})
	gate, err := client.Connect("both", insecure.NewCredentials(), client.BearerKey(first.keys[menshenv1.Role_ROLE_GATE], true), grpc.WithResolvers(both))
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Close()

	answered := map[string]*atomic.Int64{} // at each door
	for _, d := range doors {
		answered[d.address()] = new(atomic.Int64)
	}
	var over atomic.Bool
	failed := make(chan error, 8)
	var all sync.WaitGroup
	match := menshenv1.NewMatchServiceClient(gate)
	for range 4 {
		all.Go(func() {
			for !over.Load() {
				var by peer.Peer
				resp, err := match.Verify(t.Context(), &menshenv1.VerifyRequest{Subject: first.scope + "/subjects/v-1", Probe: face}, grpc.Peer(&by))
				if err == nil && resp.GetDecision().GetOutcome() != menshenv1.Outcome_OUTCOME_MATCH {
					err = fmt.Errorf("outcome %v", resp.GetDecision().GetOutcome())
				}
				if err != nil {
					failed <- err
					return
				}
				answered[by.Addr.String()].Add(1)
			}
		})
	}
	// used waits until a server has answered more calls.
	used := func(v *victim) {
		n := answered[doors[v].address()]
		for from := n.Load(); n.Load() < from+100 && len(failed) == 0; {
			time.Sleep(time.Millisecond)
		}
	}
	// The next server is restarted when the clients have come back to the last.
	for i := range 4 {
		this, other := servers[i%2], servers[(i+1)%2]
		used(this)
		used(other)
		this.stop()
		used(other)
		this.start()
		doors[this].leadTo(this.where)
	}
	used(first)
	used(second)
	over.Store(true)
	all.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	for _, v := range servers {
		v.stop()
	}
}

// door is the address of a server that has another port after each start: one that
// it gave up could be somebody else's by then.
type door struct {
	listener net.Listener
	to       atomic.Pointer[string]
}

func newDoor(t *testing.T) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d := &door{listener: l}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", *d.to.Load())
			if err != nil { // the server is away
				near.Close()
				continue
			}
			go pass(near, far)
			go pass(far, near)
		}
	}()
	return d
}

func (d *door) address() string       { return d.listener.Addr().String() }
func (d *door) leadTo(address string) { d.to.Store(&address) }

// pass copies until one side ends, and then ends both.
func pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	_, _ = io.Copy(to, from)
}
