package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// TestKillDuringSingleUse kills a server while gates use templates up: whoever
// was told MATCH is never told so again, whoever was not asked for is still
// there, and of those whose answer the kill took at most one call matches.
func TestKillDuringSingleUse(t *testing.T) {
	const rounds, subjects, gates = 3, 200, 8
	v := newVictim(t, runtimeLibrary(t))
	v.once = true
	t.Cleanup(v.disconnect)
	v.start()
	v.setUp()
	used, lost := 0, 0
	for round := range rounds {
		faces := v.rentLockers(round, subjects)
		told := v.useUntilKilled(faces, gates, round > 0, time.Duration(5+v.dice.IntN(60))*time.Millisecond)
		v.start()
		for id, probe := range faces {
			outcome, asked := told[id]
			first, second := v.verify(id, probe), v.verify(id, probe)
			switch {
			case second == menshenv1.Outcome_OUTCOME_MATCH:
				t.Errorf("round %d: %s matches twice after the restart", round, id)
			case outcome == menshenv1.Outcome_OUTCOME_MATCH && first == menshenv1.Outcome_OUTCOME_MATCH:
				t.Errorf("round %d: %s matched before the kill and again after it", round, id)
			case !asked && first != menshenv1.Outcome_OUTCOME_MATCH:
				t.Errorf("round %d: %s was not used, and is gone", round, id)
			case outcome == menshenv1.Outcome_OUTCOME_MATCH:
				used++
			case asked && first != menshenv1.Outcome_OUTCOME_MATCH:
				lost++
			}
		}
	}
	v.stop()
	t.Logf("%d kills: %d templates used before one; of %d the answer was lost", rounds, used, lost)
	if used == 0 {
		t.Error("no kill fell after a use: the test showed nothing")
	}
}

// rentLockers enrols subjects with a face each.
func (v *victim) rentLockers(round, n int) map[string]*menshenv1.Probe {
	v.t.Helper()
	faces := map[string]*menshenv1.Probe{}
	stream, err := menshenv1.NewEnrollmentServiceClient(v.conns[menshenv1.Role_ROLE_ENROLLER]).BulkEnroll(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	dice := rand.New(rand.NewPCG(uint64(round), 3))
	var items []*menshenv1.BulkEnrollRequest
	for i := range n {
		id := fmt.Sprintf("box-%d-%d", round, i)
		faces[id] = v.face(dice)
		items = append(items, &menshenv1.BulkEnrollRequest{SequenceId: uint64(i), Enroll: &menshenv1.EnrollRequest{
			Parent: v.scope, SubjectId: id, Probes: []*menshenv1.Probe{faces[id]},
			Consent: &menshenv1.Consent{Reference: "c", NoticeVersion: "1", GiveTime: timestamppb.Now()},
		}})
	}
	go func() {
		for _, item := range items {
			if stream.Send(item) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	for range n {
		if resp, err := stream.Recv(); err != nil || resp.GetError() != nil {
			v.t.Fatalf("enrolling: %v, %v", resp.GetError(), err)
		}
	}
	return faces
}

// useUntilKilled lets gates use the templates up and kills the server by its pid
// after a while, which begins with the first answer where one is to come before the
// kill. It returns who was asked for, with the answer where one came.
func (v *victim) useUntilKilled(faces map[string]*menshenv1.Probe, gates int, answered bool, wait time.Duration) map[string]menshenv1.Outcome {
	v.t.Helper()
	var mu sync.Mutex
	told := map[string]menshenv1.Outcome{}
	ids := make(chan string, len(faces))
	for id := range faces {
		ids <- id
	}
	close(ids)
	api := menshenv1.NewMatchServiceClient(v.conns[menshenv1.Role_ROLE_GATE])
	killer := time.AfterFunc(time.Hour, func() { _ = v.cmd.Process.Kill() })
	defer killer.Stop()
	kill := sync.OnceFunc(func() { killer.Reset(wait) })
	if !answered {
		kill()
	}
	var working sync.WaitGroup
	for range gates {
		working.Go(func() {
			for id := range ids {
				mu.Lock()
				told[id] = menshenv1.Outcome_OUTCOME_UNSPECIFIED
				mu.Unlock()
				resp, err := api.Verify(v.t.Context(), &menshenv1.VerifyRequest{Subject: v.scope + "/subjects/" + id, Probe: faces[id]})
				if err != nil {
					return // the kill
				}
				kill()
				mu.Lock()
				told[id] = resp.Decision.Outcome
				mu.Unlock()
			}
		})
	}
	working.Wait()
	_ = v.cmd.Process.Kill() // where all were used before
	_ = v.cmd.Wait()         // "signal: killed"
	return told
}
