package rpc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

func identifyItem(id uint64, p *pb.Probe) *pb.MatchStreamRequest {
	return &pb.MatchStreamRequest{SequenceId: id, Request: &pb.MatchStreamRequest_Identify{Identify: &pb.IdentifyRequest{Probe: p}}}
}

func verifyItem(id uint64, subject string, p *pb.Probe) *pb.MatchStreamRequest {
	return &pb.MatchStreamRequest{SequenceId: id, Request: &pb.MatchStreamRequest_Verify{Verify: &pb.VerifyRequest{Subject: subject, Probe: p}}}
}

// Every item has one answer, of its own kind, and a bad one stops nothing.
func TestMatchStreamAnswersEach(t *testing.T) {
	w := newWorld(t)
	_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-1", vectorOf(1, 0)))
	w.ok(err)
	s, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	items := []func(uint64) *pb.MatchStreamRequest{
		func(id uint64) *pb.MatchStreamRequest { return identifyItem(id, vectorOf(1, 1)) },
		func(id uint64) *pb.MatchStreamRequest { return verifyItem(id, "v-1", vectorOf(1, 2)) },
		func(id uint64) *pb.MatchStreamRequest { return verifyItem(id, "v-1", vectorOf(2, 2)) },
		func(id uint64) *pb.MatchStreamRequest { return &pb.MatchStreamRequest{SequenceId: id} },
		func(id uint64) *pb.MatchStreamRequest { return identifyItem(id, imageProbe([]byte("no picture"))) },
		func(id uint64) *pb.MatchStreamRequest {
			return &pb.MatchStreamRequest{SequenceId: id, Request: &pb.MatchStreamRequest_Verify{}}
		},
	}
	const n = 300
	go func() {
		for i := range uint64(n) {
			if s.Send(items[i%6](i)) != nil {
				return
			}
		}
		_ = s.CloseSend()
	}()
	answers, err := drainStream(s.Recv)
	w.ok(err)
	seen := map[uint64]bool{}
	for _, a := range answers {
		if seen[a.GetSequenceId()] {
			t.Errorf("two answers to %d", a.GetSequenceId())
		}
		seen[a.GetSequenceId()] = true
		got := ""
		switch a.GetSequenceId() % 6 {
		case 0:
			got = a.GetIdentify().GetResults()[0].GetDecision().GetOutcome().String()
		case 1, 2:
			got = a.GetVerify().GetDecision().GetOutcome().String()
		default:
			got = a.GetError().GetReason()
			if a.GetError().GetCode() != int32(codes.InvalidArgument) || a.GetError().GetMessage() == "" {
				t.Errorf("error %v", a)
			}
		}
		if want := []string{"OUTCOME_MATCH", "OUTCOME_MATCH", "OUTCOME_NO_MATCH", "FIELD_MISSING", "IMAGE_FORMAT", "FIELD_MISSING"}[a.GetSequenceId()%6]; got != want {
			t.Errorf("item %d: %s, want %s", a.GetSequenceId(), got, want)
		}
	}
	if len(seen) != n {
		t.Errorf("%d answers, want %d", len(seen), n)
	}
}

// A slow item does not hold up the others.
func TestMatchStreamAnswersOutOfOrder(t *testing.T) {
	w := newWorld(t)
	w.models.hold = make(chan struct{})
	s, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	w.ok(s.Send(identifyItem(1, cropOf(1, 0)))) // waits for the model
	w.ok(s.Send(identifyItem(2, vectorOf(1, 0))))
	got, err := s.Recv()
	w.ok(err)
	if got.GetSequenceId() != 2 {
		t.Errorf("first answer is to %d, want 2", got.GetSequenceId())
	}
	close(w.models.hold)
	if got, err := s.Recv(); err != nil || got.GetSequenceId() != 1 {
		t.Errorf("second answer %v, %v", got, err)
	}
	w.ok(s.CloseSend())
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("after the close: %v, want EOF", err)
	}
}

// A client that sends and never reads is held up, whatever it sends; nothing
// piles up; and the others are served meanwhile.
func TestMatchStreamWithoutReads(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(w.ctx())
	s, err := w.match("gate").MatchStream(ctx)
	w.ok(err)
	idle := liveHeap()
	var sent atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := range uint64(10_000) {
			if s.Send(identifyItem(i, cropOf(1, 0))) != nil {
				return
			}
			sent.Add(1)
		}
	}()
	var still int64
	for before := int64(-1); before != still || still == 0 && ctx.Err() == nil; { // until nothing moves
		before = still
		time.Sleep(300 * time.Millisecond)
		still = sent.Load()
	}
	runs := w.models.runs.Load()
	if still == 0 || still > 2000 {
		t.Errorf("%d of 10,000 items were taken from a client that does not read", still)
	}
	held := liveHeap() - idle
	if held > 32<<20 {
		t.Errorf("%d MiB are held for a client that does not read", held>>20)
	}
	_, err = w.match("both gate").Identify(w.ctx(), &pb.IdentifyRequest{Scope: "tenants/fair/scopes/hall-a", Probe: cropOf(2, 0)})
	w.ok(err)
	t.Logf("%d items taken, %d embedded, %d KiB held", still, runs, held>>10)
	cancel()
	<-ended
}

// liveHeap is how many bytes are in use.
func liveHeap() int64 {
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	return int64(mem.HeapAlloc)
}

// width bounds the items at work, and large items count for more.
func TestStreamWidth(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.StreamWidth = 3 })
	w.models.hold = make(chan struct{})
	s, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	go func() {
		for i := range uint64(10) {
			_ = s.Send(identifyItem(i, cropOf(1, 0)))
		}
		_ = s.CloseSend()
	}()
	for w.models.runs.Load() < 3 {
		if err := s.Context().Err(); err != nil {
			t.Fatalf("%d items at work, want 3: %v", w.models.runs.Load(), err)
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(200 * time.Millisecond) // long enough for more to come
	if n := w.models.runs.Load(); n != 3 {
		t.Errorf("%d items at work, want 3", n)
	}
	close(w.models.hold)
	answers, err := drainStream(s.Recv)
	w.ok(err)
	if len(answers) != 10 {
		t.Errorf("%d answers, want 10", len(answers))
	}
	p := &pump[*pb.MatchStreamRequest, *pb.MatchStreamResponse]{width: 16}
	for size, want := range map[int]int{0: 1, 100: 1, 1<<20 + 100: 2, 5 << 20: 6, 100 << 20: 16} {
		if got := p.cost(identifyItem(1, imageProbe(make([]byte, size)))); got != want {
			t.Errorf("an item of %d bytes costs %d, want %d", size, got, want)
		}
	}
}

// A revoked key gets no answer any more and its streams end: at the next item,
// before an answer in flight, or within lookEvery.
func TestRevokedKeyEndsStreams(t *testing.T) {
	w := newWorld(t)
	w.models.hold = make(chan struct{})
	ctx := w.ctx()
	working, err := w.match("gate").MatchStream(ctx) // has an item at work
	w.ok(err)
	w.ok(working.Send(identifyItem(1, cropOf(1, 0))))
	sending, err := w.match("gate").MatchStream(ctx) // sends another item later
	w.ok(err)
	w.ok(sending.Send(identifyItem(1, vectorOf(1, 0))))
	_, err = sending.Recv()
	w.ok(err)
	silent, err := w.match("gate").MatchStream(ctx) // never sends again
	w.ok(err)
	w.ok(silent.Send(identifyItem(1, vectorOf(1, 0))))
	_, err = silent.Recv()
	w.ok(err)
	for w.models.runs.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	_, err = w.administer("operator").RevokeCredential(ctx, &pb.RevokeCredentialRequest{Name: credentialName("fair", w.ids["gate"])})
	w.ok(err)
	_ = sending.Send(identifyItem(2, vectorOf(1, 0))) // Recv tells how the stream ended, which may be before
	_, err = sending.Recv()
	w.want("the next item", err, codes.Unauthenticated, "CREDENTIAL_INVALID")
	close(w.models.hold)
	_, err = working.Recv()
	w.want("an item in flight", err, codes.Unauthenticated, "CREDENTIAL_INVALID")
	_, err = silent.Recv()
	w.want("a silent stream", err, codes.Unauthenticated, "CREDENTIAL_INVALID")
}

// A scope that is revoked while items are at work matches nothing any more.
func TestRevokedScopeAnswersNoMatchInFlight(t *testing.T) {
	w := newWorld(t)
	_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-1", vectorOf(1, 0)))
	w.ok(err)
	w.models.hold = make(chan struct{})
	s, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	for i := range uint64(8) {
		w.ok(s.Send(identifyItem(i, cropOf(1, 1))))
	}
	for w.models.runs.Load() < 8 {
		time.Sleep(time.Millisecond)
	}
	_, err = w.scopes("operator").RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: "tenants/fair/scopes/hall-a"})
	w.ok(err)
	close(w.models.hold)
	w.ok(s.CloseSend())
	answers, err := drainStream(s.Recv)
	w.ok(err)
	for _, a := range answers {
		if a.GetError().GetReason() != "SCOPE_REVOKED" {
			t.Errorf("after the revocation: %v", a)
		}
	}
	if len(answers) != 8 {
		t.Errorf("%d answers, want 8", len(answers))
	}
}

// Drain lets items in flight be answered, then ends the stream for another
// server to take over.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	w.models.hold = make(chan struct{})
	s, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	w.ok(s.Send(identifyItem(1, cropOf(1, 0))))
	for w.models.runs.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		w.server.Drain(ctx)
	}()
	time.Sleep(50 * time.Millisecond)
	close(w.models.hold)
	if got, err := s.Recv(); err != nil || got.GetIdentify() == nil {
		t.Errorf("the item in flight: %v, %v", got, err)
	}
	_, err = s.Recv()
	w.want("the end", err, codes.Unavailable, "SERVER_CLOSING")
	select {
	case <-drained:
	case <-time.After(patience):
		t.Error("Drain hangs")
	}
	if _, err := w.match("gate").Identify(w.ctx(), &pb.IdentifyRequest{Probe: vectorOf(1, 0)}); err == nil {
		t.Error("a call is served after Drain")
	}
}

// Drain is over when its time is, however long a handler would like to take.
func TestDrainIsBounded(t *testing.T) {
	w := newWorld(t)
	w.models.hold = make(chan struct{}) // never given back: runs end by their context
	s, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	w.ok(s.Send(identifyItem(1, cropOf(1, 0))))
	for w.models.runs.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	drained := make(chan struct{})
	go func() { w.server.Drain(ctx); close(drained) }()
	select {
	case <-drained:
	case <-time.After(patience):
		t.Fatal("Drain hangs")
	}
	if _, err := s.Recv(); err == nil {
		t.Error("an answer after the cut")
	}
}

// The client goes away in the middle: the work stops.
func TestClientCancels(t *testing.T) {
	w := newWorld(t)
	w.models.hold = make(chan struct{})
	defer close(w.models.hold)
	ctx, cancel := context.WithCancel(w.ctx())
	s, err := w.match("gate").MatchStream(ctx)
	w.ok(err)
	for i := range uint64(4) {
		w.ok(s.Send(identifyItem(i, cropOf(1, 0))))
	}
	for w.models.runs.Load() < 4 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if _, err := s.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("%v", err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		stacks := make([]byte, 4<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if !bytes.Contains(stacks, []byte("rpc.(*pump[")) && !bytes.Contains(stacks, []byte("rpc.(*fakeModels)")) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("work goes on:\n%s", stacks)
		}
	}
}

func TestBulkEnroll(t *testing.T) {
	w := newWorld(t)
	s, err := w.enroll("enroller").BulkEnroll(w.ctx())
	w.ok(err)
	const n = 200
	go func() {
		for i := range uint64(n) {
			req := w.enrollment(fmt.Sprintf("v-%d", i), vectorOf(uint16(i), 0))
			switch i % 10 {
			case 3:
				req.Probes[0] = vectorProbe(fakeModelID(), 1, 2, 3)
			case 7:
				req.Consent = nil
			case 9:
				req = nil
			}
			if s.Send(&pb.BulkEnrollRequest{SequenceId: i, Enroll: req}) != nil {
				return
			}
		}
		_ = s.CloseSend()
	}()
	results, err := drainStream(s.Recv)
	w.ok(err)
	var ids []uint64
	for _, r := range results {
		ids = append(ids, r.GetSequenceId())
		want := map[uint64]string{3: "EMBEDDING_LENGTH", 7: "INVALID_FIELD", 9: "FIELD_MISSING"}[r.GetSequenceId()%10]
		if got := r.GetError().GetReason(); got != want || want == "" && r.GetEnrolled().GetSubject().GetName() != fmt.Sprintf("tenants/fair/scopes/hall-a/subjects/v-%d", r.GetSequenceId()) {
			t.Errorf("item %d: %v", r.GetSequenceId(), r)
		}
	}
	slices.Sort(ids)
	if len(ids) != n || len(slices.Compact(ids)) != n {
		t.Errorf("%d results for %d items", len(ids), n)
	}
	got, err := w.scopes("gate").GetScope(w.ctx(), &pb.GetScopeRequest{})
	w.ok(err)
	if got.GetScope().GetSubjectCount() != n*7/10 {
		t.Errorf("%d subjects enrolled, want %d", got.GetScope().GetSubjectCount(), n*7/10)
	}
}

// Of several items for the same new subject one is enrolled.
func TestBulkEnrollSameSubject(t *testing.T) {
	w := newWorld(t)
	s, err := w.enroll("enroller").BulkEnroll(w.ctx())
	w.ok(err)
	for i := range uint64(12) {
		w.ok(s.Send(&pb.BulkEnrollRequest{SequenceId: i, Enroll: w.enrollment("v-1", vectorOf(uint16(i), 0))}))
	}
	w.ok(s.CloseSend())
	results, err := drainStream(s.Recv)
	w.ok(err)
	enrolled := 0
	for _, r := range results {
		if r.GetEnrolled() != nil {
			enrolled++
		} else if r.GetError().GetReason() != "SUBJECT_EXISTS" {
			t.Errorf("%v", r)
		}
	}
	got, err := w.enroll("enroller").GetSubject(w.ctx(), &pb.GetSubjectRequest{Name: "tenants/fair/scopes/hall-a/subjects/v-1"})
	w.ok(err)
	if len(results) != 12 || enrolled != 1 || len(got.GetSubject().GetTemplates()) != 1 {
		t.Errorf("%d results, %d enrolled, %d templates", len(results), enrolled, len(got.GetSubject().GetTemplates()))
	}
}
