package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"

	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/matcher/rpc/arrive"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/pipeline"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// Options wire a Server. Matcher, Authority, Audit and Logger are required.
type Options struct {
	Matcher   *matcher.Matcher
	Authority *auth.Authority
	// Audit takes the acts; the decisions it has from the matcher.
	Audit  *audit.Log
	Logger *slog.Logger
	// Info is what GetServerInfo tells besides the limits.
	Info Info
	// Credentials secure the transport; nil means none (loopback only).
	Credentials credentials.TransportCredentials
	// MaxMessageBytes bounds a request message; 0 means DefaultMaxMessage.
	MaxMessageBytes int
	// StreamWidth is how many items of one stream are worked on at a time; 0
	// means DefaultStreamWidth.
	StreamWidth int
	// StallLimit is how long a message of a request may take to arrive, unless it
	// brings ArrivalRate bytes for each second beyond, and an answer of a stream
	// to be taken; 0 means DefaultStallLimit and DefaultArrivalRate.
	StallLimit  time.Duration
	ArrivalRate int
	// ArrivingBytes bounds the messages that are on their way, in all; 0 means
	// arrive.DefaultBound.
	ArrivingBytes int64
	// OpenReflection serves reflection without a credential.
	OpenReflection bool

	watch stats.Handler // nil: none; tests see there what leaves
}

// Info describes the server to GetServerInfo.
type Info struct {
	Version        string
	RuntimeVersion string // of ONNX Runtime
	Kernel         string
	Models         []pipeline.ModelInfo
	Images         decode.Limits
	Start          time.Time
}

const (
	// DefaultMaxMessage holds an image of decode.DefaultLimits' 16 MiB and its
	// envelope.
	DefaultMaxMessage = 20 << 20
	// DefaultStreamWidth is four items for each of four cores.
	DefaultStreamWidth = 16
	// maxHeaders bounds the headers of a call; ours have under 1 KiB.
	maxHeaders = 16 << 10
	// maxStreams bounds the calls in flight of one connection. A client that has
	// more to ask waits on its side, unseen, so there must be room for all that
	// the limiter lets wait.
	maxStreams = 1024
	// DefaultStallLimit is time for a picture of 200 KB at 160 kbit/s.
	DefaultStallLimit = 10 * time.Second
	// DefaultArrivalRate lets a photo of 5 MB take five minutes.
	DefaultArrivalRate = 16 << 10
)

// Connections are pinged when silent, so that dead gates are noticed; clients
// may ping every ten seconds; and a connection is replaced every two hours, so
// that load finds its way to new servers. Streams then have a minute to end.
var (
	keepaliveServer = keepalive.ServerParameters{
		MaxConnectionIdle: 15 * time.Minute, MaxConnectionAge: 2 * time.Hour, MaxConnectionAgeGrace: time.Minute,
		Time: 30 * time.Second, Timeout: 20 * time.Second,
	}
	keepaliveClients = keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}
)

// streamWorkers are goroutines of gRPC that take one call after the other, with
// stacks that have grown to what a call needs; further calls that come at the
// same time get a goroutine each. Growing a stack was 11% of a server's time.
const streamWorkers = 64

// connectTimeout bounds the handshakes of a new connection.
const connectTimeout = 10 * time.Second

// Server is the gRPC server. Serve may be called for several listeners.
type Server struct {
	grpc    *grpc.Server
	health  *health.Server
	policy  policy
	journal journal
	acts    *acts

	drainOnce sync.Once
	draining  chan struct{} // closed when calls in flight are to end

	arrivals     *arrive.Watch
	stalls       *stalls
	watchers     atomic.Int64 // of health
	stopWatching context.CancelFunc
	watching     sync.WaitGroup // goroutines that look after stalls and the log
}

// service is what all handlers share.
type service struct {
	matcher   *matcher.Matcher
	authority *auth.Authority
	journal   journal
	acts      *acts
	info      Info
	limits    *pb.Limits
	width     int
	draining  <-chan struct{}
}

// New wires a server; nothing listens before Serve.
func New(opt Options) (*Server, error) {
	if opt.Matcher == nil || opt.Authority == nil || opt.Audit == nil || opt.Logger == nil {
		return nil, errors.New("rpc: Matcher, Authority, Audit and Logger are required")
	}
	if opt.MaxMessageBytes == 0 {
		opt.MaxMessageBytes = DefaultMaxMessage
	}
	if opt.StreamWidth == 0 {
		opt.StreamWidth = DefaultStreamWidth
	}
	if opt.StallLimit == 0 {
		opt.StallLimit = DefaultStallLimit
	}
	if opt.ArrivalRate == 0 {
		opt.ArrivalRate = DefaultArrivalRate
	}
	if opt.StallLimit < 0 || opt.ArrivalRate < 0 || opt.ArrivingBytes < 0 {
		return nil, errors.New("rpc: StallLimit, ArrivalRate and ArrivingBytes must be positive, or 0 for the default")
	}
	if opt.MaxMessageBytes < 0 || opt.StreamWidth < 0 {
		return nil, errors.New("rpc: MaxMessageBytes and StreamWidth must be positive, or 0 for the default")
	}
	s := &Server{policy: newPolicy(opt.OpenReflection), journal: journal{opt.Logger, &refusals{log: opt.Logger, now: time.Now}}, health: health.NewServer(), draining: make(chan struct{}), stalls: newStalls(opt.StallLimit)}
	if err := s.policy.check(); err != nil {
		return nil, err
	}
	s.acts = newActs(opt.Audit, opt.Logger)
	s.arrivals = arrive.New(arrive.Options{Bound: opt.ArrivingBytes, Limit: opt.StallLimit, Rate: int64(opt.ArrivalRate), Cut: cutOff})
	a := &admittance{
		acts: s.acts, policy: s.policy, authority: opt.Authority, limiter: opt.Matcher.Admission(),
		arrivals: s.arrivals, streams: make(map[string]bool), refused: &refusals{log: opt.Logger, now: time.Now},
	}
	s.grpc = grpc.NewServer(s.options(opt, a)...)
	s.register(&service{
		matcher: opt.Matcher, authority: opt.Authority, journal: s.journal, acts: s.acts, info: opt.Info,
		limits: limitsMessage(opt), width: opt.StreamWidth, draining: s.draining,
	})
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			a.streams["/"+service+"/"+m.Name] = m.IsClientStream
		}
	}
	run, stop := context.WithCancel(context.Background())
	s.stopWatching = stop
	s.watching.Go(func() { s.arrivals.Run(run) })
	s.watching.Go(func() { s.stalls.run(run) })
	s.watching.Go(func() { s.report(run, a.limiter) })
	s.watching.Go(func() { s.acts.run(run) })
	return s, nil
}

func (s *Server) options(opt Options, a *admittance) []grpc.ServerOption {
	if opt.Credentials == nil {
		opt.Credentials = insecure.NewCredentials()
	}
	options := []grpc.ServerOption{
		grpc.Creds(s.arrivals.Credentials(opt.Credentials)),
		grpc.ReadBufferSize(0), // the watched connection has one
		grpc.InTapHandle(a.tap),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.UnaryInterceptor(s.observeUnary(a)),
		grpc.ChainStreamInterceptor(s.observeStream, a.stream),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(opt.MaxMessageBytes),
		experimental.BufferPool(new(WipingPool)),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepaliveServer),
		grpc.KeepaliveEnforcementPolicy(keepaliveClients),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.WaitForHandlers(true), // so that the store is closed after the last handler
	}
	if opt.watch != nil {
		options = append(options, grpc.StatsHandler(opt.watch))
	}
	return options
}

func (s *Server) register(svc *service) {
	match := &matchServer{service: svc}
	s.serve(match.desc(), match)
	s.serve(&pb.EnrollmentService_ServiceDesc, &enrollmentServer{service: svc})
	s.serve(&pb.ScopeService_ServiceDesc, &scopeServer{service: svc})
	s.serve(&pb.AdminService_ServiceDesc, &adminServer{service: svc})
	s.serve(&grpc_health_v1.Health_ServiceDesc, s.health)
	s.serve(&pb.AuditService_ServiceDesc, &auditServer{service: svc})
	reflection.Register(s.grpc)
	s.setHealth()
}

func (s *Server) serve(desc *grpc.ServiceDesc, handlers any) {
	s.grpc.RegisterService(handled(desc), handlers)
}

// observeUnary is the interceptor: it admits the call, catches panics, turns
// errors into statuses and notes the call.
func (s *Server) observeUnary(a *admittance) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		began := time.Now()
		if arrival := arrivalOf(ctx); arrival != nil {
			arrival.Taken()
		}
		resp, err := s.guardUnary(ctx, a, req, info, handle)
		if err != nil {
			resp, err = nil, s.journal.status(ctx, info.FullMethod, err).Err()
		}
		s.journal.ended(ctx, callOf(ctx), began, err)
		return resp, err
	}
}

func (s *Server) guardUnary(ctx context.Context, a *admittance, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	_, changes := deeds[info.FullMethod]
	defer forget(req)
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, s.journal.panicked(ctx, info.FullMethod, p)
			s.acts.failed(callOf(ctx), req, err, changes)
		}
	}()
	if !changes {
		if resp, err = a.unary(ctx, req, info, handle); err != nil {
			s.acts.failed(callOf(ctx), req, err, false)
		}
		return resp, err
	}
	return a.unary(ctx, req, info, s.accounted(handle))
}

// accounted writes down what a handler changes.
func (s *Server) accounted(handle grpc.UnaryHandler) grpc.UnaryHandler {
	return func(ctx context.Context, req any) (any, error) {
		return account(ctx, s.acts, callOf(ctx), req, func(ctx context.Context) (any, error) { return handle(ctx, req) })
	}
}

func (s *Server) observeStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	began, ctx := time.Now(), stream.Context()
	watched := s.stalls.open(stream)
	defer s.stalls.close(watched)
	stream = watched
	if info.FullMethod == grpc_health_v1.Health_Watch_FullMethodName {
		leave, err := s.enterWatch()
		if err != nil {
			return toStatus(err).Err()
		}
		defer leave()
		// A watch ends only with its context; without this, one watcher would
		// hold the shutdown up until its time is over.
		drained, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() {
			select {
			case <-s.draining:
				cancel(errDraining)
			case <-drained.Done():
			}
		}()
		stream = &contextStream{stream, drained}
	}
	err := s.journal.guarded(ctx, info.FullMethod, func() error { return handle(srv, stream) })
	if err != nil {
		err = s.journal.status(ctx, info.FullMethod, err).Err()
	}
	s.journal.ended(ctx, callOf(ctx), began, err)
	return err
}

// contextStream is a stream with a context of its own.
type contextStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *contextStream) Context() context.Context { return s.ctx }

// Serve answers calls on a listener until Drain. It returns nil after Drain.
func (s *Server) Serve(l net.Listener) error { return s.grpc.Serve(l) }
