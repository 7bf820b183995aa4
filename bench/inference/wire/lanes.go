package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// Target is what lanes ask.
type Target struct {
	Method string
	// Conns are shared by the lanes in turn.
	Conns []*grpc.ClientConn
	// Requests are the encoded requests; a lane sends them in turn. Those of a
	// stream carry the sequence ids 1, 2, ... as their first field, and so do
	// the answers: request i is sent again only after its answer.
	Requests [][]byte
	// Check looks at an encoded answer.
	Check func(answer []byte) error
}

// refusedPause keeps a lane that was refused from spinning; mostRefused is after
// how many refusals in a row it gives up.
const (
	refusedPause = time.Millisecond
	mostRefused  = 1000
)

// checkEvery is one in how many answers of a lane Check sees.
const checkEvery = 64

// Unary lets lanes of callers call for as long as d, one call at a time each and
// one at least, and returns calls per second.
func Unary(ctx context.Context, t Target, lanes int, d time.Duration) (float64, error) {
	return t.all(ctx, lanes, d, t.unary)
}

// Stream opens a bidirectional stream for each lane, keeps all requests of the
// target in flight on it for as long as d, and returns answers per second.
func Stream(ctx context.Context, t Target, lanes int, d time.Duration) (float64, error) {
	return t.all(ctx, lanes, d, t.stream)
}

// lane works until the end and returns how many answers it has had.
type lane func(ctx context.Context, conn *grpc.ClientConn, end time.Time) (int, error)

func (t Target) all(ctx context.Context, lanes int, d time.Duration, work lane) (float64, error) {
	var (
		group  sync.WaitGroup
		counts = make([]int, lanes)
		errs   = make([]error, lanes)
		began  = time.Now()
	)
	for i := range lanes {
		group.Go(func() { counts[i], errs[i] = work(ctx, t.Conns[i%len(t.Conns)], began.Add(d)) })
	}
	group.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("%s: %w", t.Method, err)
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / took.Seconds(), nil
}

// Calls makes n calls, one after the other, on the first connection: for
// counting what one takes.
func Calls(ctx context.Context, t Target, n int) error {
	_, err := t.calls(ctx, t.Conns[0], func(done int) bool { return done < n })
	return err
}

func (t Target) unary(ctx context.Context, conn *grpc.ClientConn, end time.Time) (n int, err error) {
	return t.calls(ctx, conn, func(done int) bool { return done == 0 || time.Now().Before(end) })
}

func (t Target) calls(ctx context.Context, conn *grpc.ClientConn, more func(done int) bool) (n int, err error) {
	var answer Frame
	refused := 0 // since the last answer
	for more(n) {
		err := conn.Invoke(ctx, t.Method, &Frame{t.Requests[n%len(t.Requests)]}, &answer, grpc.ForceCodecV2(codec{}), grpc.StaticMethod())
		// A refusal is no answer, and does not count as one.
		if refused++; status.Code(err) == codes.ResourceExhausted && refused < mostRefused {
			time.Sleep(refusedPause)
			continue
		}
		if err != nil {
			return n, err
		}
		refused = 0
		if err := t.look(n, answer.Bytes); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func (t Target) look(n int, answer []byte) error {
	if n%checkEvery != 0 {
		return nil
	}
	return t.Check(answer)
}

func (t Target) stream(ctx context.Context, conn *grpc.ClientConn, end time.Time) (n int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, t.Method, grpc.ForceCodecV2(codec{}), grpc.StaticMethod())
	if err != nil {
		return 0, err
	}
	free := make(chan int, len(t.Requests)) // requests that are not in flight
	for i := range t.Requests {
		free <- i
	}
	go func() {
		for i := range free {
			if s.SendMsg(&Frame{t.Requests[i]}) != nil {
				return // the receiver is told why
			}
		}
		_ = s.CloseSend()
	}()
	stop := sync.OnceFunc(func() { close(free) })
	defer stop()
	var answer Frame
	for left := len(t.Requests); left > 0; n++ {
		if err := s.RecvMsg(&answer); err != nil {
			return n, err
		}
		if err := t.look(n, answer.Bytes); err != nil {
			return n, err
		}
		id, err := sequence(answer.Bytes)
		if err != nil {
			return n, err
		}
		if id > uint64(len(t.Requests)) {
			return n, fmt.Errorf("an answer to request %d of %d", id, len(t.Requests))
		}
		if time.Now().Before(end) {
			free <- int(id - 1)
			continue
		}
		stop()
		left--
	}
	if err := s.RecvMsg(&Frame{}); err != io.EOF {
		return n, fmt.Errorf("after the last answer: %v, want the end of the stream", err)
	}
	return n, nil
}

// sequence reads the id that the answer begins with.
func sequence(answer []byte) (uint64, error) {
	field, kind, n := protowire.ConsumeTag(answer)
	if n < 0 || field != 1 || kind != protowire.VarintType {
		return 0, errors.New("the first field is no sequence id")
	}
	id, n := protowire.ConsumeVarint(answer[n:])
	if n < 0 || id == 0 {
		return 0, errors.New("the sequence id is malformed or 0")
	}
	return id, nil
}
