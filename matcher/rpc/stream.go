package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// pump answers the items of a bidirectional stream, several at a time and so in
// any order. An item that fails is answered by an error in its place.
//
// Memory: an item costs a token for itself and one more for each tokenBytes of its
// size, and there are width tokens, so that about width times tokenBytes are
// worked on at a time, and at most one item more is held that was read ahead. A token is given
// back when the answer is handed to the transport, which waits for a client that
// does not read: then nothing more is read from it either. Nor is it while items are
// held that the limiter has no room for (admission.Ask.Streamed). Quick items cost no
// token: the reader answers them one by one before it reads on, and the answers
// that it hands over in a row leave in one write to the connection.
type pump[Req proto.Message, Resp any] struct {
	stream interface {
		grpc.ServerStream
		Recv() (Req, error)
		Send(Resp) error
	}
	width int
	// tokenBytes is how much of an item one token stands for; 0: a MiB.
	tokenBytes int
	draining   <-chan struct{}
	// check tells whether the caller is still welcome: asked before an item is
	// taken up and again before its answer is sent.
	check func() error
	// answer works on an item and never fails: a fault is an answer too. What
	// it returns is called when it is the answer's turn to be sent, and may
	// still change it.
	answer func(ctx context.Context, item Req) (seal func() Resp)
	// quick tells whether an item is answered sooner than it is handed to
	// another goroutine. The reader answers those itself. Nil: none is.
	quick func(item Req) bool

	sending sync.Mutex
	reading sync.Mutex // held while the reader answers an item
	over    bool       // run has returned, or will when the last answer is sent; under reading
}

// received is what the reader got: an item, or why there are no more.
type received[Req any] struct {
	item Req
	err  error
}

// run returns nil when the client has closed its side and has all answers.
func (p *pump[Req, Resp]) run() error {
	ctx, fail := context.WithCancelCause(p.stream.Context())
	defer fail(nil)
	items := make(chan received[Req])
	go p.read(ctx, items)

	var working sync.WaitGroup
	tokens := make(chan struct{}, p.width)
	err := p.dispatch(ctx, items, func(item Req) error {
		cost := p.cost(item)
		if err := p.take(ctx, tokens, cost); err != nil {
			return err
		}
		working.Go(func() {
			defer give(tokens, cost)
			if err := p.work(ctx, item); err != nil {
				fail(err)
			}
		})
		return nil
	})
	if err != nil && !errors.Is(err, errDraining) {
		fail(err) // nobody waits for what is in flight
	}
	p.reading.Lock() // waits for what the reader answers
	p.over = true
	p.reading.Unlock()
	working.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// read answers quick items and hands over the others, until the stream ends.
func (p *pump[Req, Resp]) read(ctx context.Context, items chan<- received[Req]) {
	for {
		item, err := p.stream.Recv()
		if err == nil && p.quick != nil && p.quick(item) {
			var taken bool
			if taken, err = p.answerQuick(ctx, item); taken && err == nil {
				continue
			}
		}
		select {
		case items <- received[Req]{item, err}:
		case <-ctx.Done():
			forget(item)
			return
		}
		if err != nil {
			return
		}
	}
}

// answerQuick answers an item in the reader, unless no item is taken up any more.
func (p *pump[Req, Resp]) answerQuick(ctx context.Context, item Req) (taken bool, err error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	select {
	case <-p.draining:
		return false, nil
	default:
	}
	if p.over {
		return false, nil
	}
	if err := p.check(); err != nil {
		return true, err
	}
	return true, p.work(ctx, item)
}

// lookEvery is how often the caller of a silent stream is looked at.
const lookEvery = time.Second

// dispatch starts items until there are no more, and says why.
func (p *pump[Req, Resp]) dispatch(ctx context.Context, items <-chan received[Req], start func(Req) error) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		var r received[Req]
		select {
		case r = <-items:
		case <-p.draining:
			return errDraining
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look.C:
			if err := p.check(); err != nil {
				return err
			}
			continue
		}
		if errors.Is(r.err, io.EOF) {
			return nil
		}
		if r.err != nil {
			return r.err
		}
		if err := p.check(); err != nil {
			return err
		}
		if err := start(r.item); err != nil {
			return err
		}
	}
}

// work answers one item.
func (p *pump[Req, Resp]) work(ctx context.Context, item Req) error {
	seal := p.answer(ctx, item)
	forget(item)
	p.sending.Lock()
	defer p.sending.Unlock()
	if err := p.check(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.stream.Send(seal())
}

func (p *pump[Req, Resp]) cost(item Req) int {
	each := p.tokenBytes
	if each == 0 {
		each = 1 << 20
	}
	return min(p.width, 1+proto.Size(item)/each)
}

// take waits for n tokens. Only dispatch takes, so that two takers cannot wait
// for each other.
func (p *pump[Req, Resp]) take(ctx context.Context, tokens chan struct{}, n int) error {
	for taken := range n {
		select {
		case tokens <- struct{}{}:
			continue
		case <-ctx.Done():
			give(tokens, taken)
			return context.Cause(ctx)
		case <-p.draining:
			give(tokens, taken)
			return errDraining
		}
	}
	return nil
}

func give(tokens <-chan struct{}, n int) {
	for range n {
		<-tokens
	}
}

// streamError is the status of one item.
func (s *service) streamError(ctx context.Context, method string, err error) *pb.StreamError {
	st := s.journal.status(ctx, method, err)
	out := &pb.StreamError{Code: int32(st.Code()), Message: st.Message()}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			out.Reason = info.GetReason()
		}
	}
	return out
}
