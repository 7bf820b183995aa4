package rpc

import (
	"context"
	"encoding/hex"
	"fmt"
	"path"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// matchServer is the MatchService.
type matchServer struct {
	pb.UnimplementedMatchServiceServer
	*service
}

// desc is the generated description of the service with handlers of its own for
// the calls that gates make all day.
func (s *matchServer) desc() *grpc.ServiceDesc {
	d := pb.MatchService_ServiceDesc
	d.Methods = []grpc.MethodDesc{
		unary(pb.MatchService_Verify_FullMethodName, s, s.verifyCall),
		unary(pb.MatchService_Identify_FullMethodName, s, s.identifyCall),
	}
	return &d
}

// unary does what the generated code does for a method, but makes its info and
// its handler once and not for every call. Without an interceptor nobody would
// have admitted the call: it is refused then.
func unary[Req, Resp any](name string, server any, method func(context.Context, *Req) (*Resp, error)) grpc.MethodDesc {
	info := &grpc.UnaryServerInfo{Server: server, FullMethod: name}
	handle := func(ctx context.Context, req any) (any, error) { return method(ctx, req.(*Req)) }
	return grpc.MethodDesc{
		MethodName: path.Base(name),
		Handler: func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			req := new(Req)
			if err := decode(req); err != nil {
				return nil, err
			}
			if intercept == nil {
				return nil, toStatus(errNoMethod).Err()
			}
			return intercept(ctx, req, info, handle)
		},
	}
}

func (s *matchServer) verifyCall(ctx context.Context, req *pb.VerifyRequest) (*departure, error) {
	out := new(struct {
		departure
		response pb.VerifyResponse
		decision decision
	})
	d, err := s.verify(ctx, callOf(ctx), req, matcher.VerifyQuery{Passage: &out.passage})
	if err != nil {
		return nil, err
	}
	out.response.Decision = out.decision.fill(d)
	out.message = &out.response
	return &out.departure, nil
}

func (s *matchServer) identifyCall(ctx context.Context, req *pb.IdentifyRequest) (*departure, error) {
	out := new(departure)
	results, err := s.identify(ctx, callOf(ctx), req, matcher.IdentifyQuery{Passage: &out.passage})
	if err != nil {
		return nil, err
	}
	out.message = identifyResponse(results)
	return out, nil
}

func (s *matchServer) MatchStream(stream grpc.BidiStreamingServer[pb.MatchStreamRequest, pb.MatchStreamResponse]) error {
	c := callOf(stream.Context())
	p := pump[*pb.MatchStreamRequest, *departure]{
		stream: departing{stream}, width: s.width, draining: s.draining,
		check: func() error { return c.check(s.authority) },
		answer: func(ctx context.Context, req *pb.MatchStreamRequest) func() *departure {
			return s.answer(ctx, c, req)
		},
		quick: brief,
	}
	return p.run()
}

// brief reports a comparison of an embedding with one subject: 5 us of work.
// On a busy machine such items wait for their turn one by one, and the stream with
// them; side by side they would be refused for standing in each other's way.
func brief(req *pb.MatchStreamRequest) bool {
	r, ok := req.GetRequest().(*pb.MatchStreamRequest_Verify)
	return ok && r.Verify.GetProbe().GetEmbedding() != nil
}

// answer works on one item of a MatchStream. An answer can wait for its turn as
// long as the client does not read; so the fence is asked again before it is
// handed over, and a match that was overtaken meanwhile leaves as an error.
func (s *service) answer(ctx context.Context, c call, req *pb.MatchStreamRequest) (seal func() *departure) {
	out, err := s.decide(ctx, c, req)
	out.response.SequenceId = req.GetSequenceId()
	out.message = &out.response
	return func() *departure {
		for i := range out.decisions {
			if err == nil {
				err = s.matcher.Stands(out.decisions[i], &out.passage)
			}
		}
		if err != nil {
			out.passage.End()
			out.response.Response = &pb.MatchStreamResponse_Error{Error: s.streamError(ctx, c.method, err)}
		}
		return &out.departure
	}
}

// streamed is the answer to an item, and what it says, for the fence.
type streamed struct {
	departure
	response  pb.MatchStreamResponse
	decisions []matcher.Decision
}

// verified is the answer to a verify item in one piece of memory.
type verified struct {
	streamed
	kind     pb.MatchStreamResponse_Verify
	response pb.VerifyResponse
	message  decision
	decision [1]matcher.Decision
}

// decide makes the answer to an item. It never panics.
func (s *service) decide(ctx context.Context, c call, req *pb.MatchStreamRequest) (out *streamed, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = new(streamed), s.journal.panicked(ctx, c.method, p)
		}
	}()
	switch r := req.GetRequest().(type) {
	case *pb.MatchStreamRequest_Verify:
		v := new(verified)
		if v.decision[0], err = s.verify(ctx, c, r.Verify, matcher.VerifyQuery{Deferred: true}); err != nil {
			s.acts.failed(c, r.Verify, err, false)
			return &v.streamed, err
		}
		v.response.Decision = v.message.fill(v.decision[0])
		v.kind.Verify = &v.response
		v.streamed.response.Response = &v.kind
		v.decisions = v.decision[:]
		return &v.streamed, nil
	case *pb.MatchStreamRequest_Identify:
		out := new(streamed)
		results, err := s.identify(ctx, c, r.Identify, matcher.IdentifyQuery{Deferred: true})
		if err != nil {
			s.acts.failed(c, r.Identify, err, false)
		}
		for _, f := range results {
			out.decisions = append(out.decisions, f.Decision)
		}
		out.response.Response = &pb.MatchStreamResponse_Identify{Identify: identifyResponse(results)}
		return out, err
	}
	return new(streamed), &fieldError{errMissing, "request", "is required: verify or identify"}
}

func (s *service) verify(ctx context.Context, c call, req *pb.VerifyRequest, q matcher.VerifyQuery) (d matcher.Decision, err error) {
	ref, id, err := c.subjectOf("subject", req.GetSubject())
	if err != nil {
		return d, err
	}
	grant, err := c.grantFor(ref, scope.UseVerify)
	if err != nil {
		return d, err
	}
	q.Subject = id
	if q.Probe, err = readProbe("probe", req.GetProbe()); err != nil {
		return d, err
	}
	return s.matcher.Verify(ctx, grant, q)
}

func (s *service) identify(ctx context.Context, c call, req *pb.IdentifyRequest, q matcher.IdentifyQuery) ([]matcher.FaceResult, error) {
	ref, err := c.scopeOf("scope", req.GetScope())
	if err != nil {
		return nil, err
	}
	grant, err := c.grantFor(ref, scope.UseIdentify)
	if err != nil {
		return nil, err
	}
	if err := readIdentify(req, &q); err != nil {
		return nil, err
	}
	return s.matcher.Identify(ctx, grant, q)
}

func identifyResponse(results []matcher.FaceResult) *pb.IdentifyResponse {
	out := &pb.IdentifyResponse{Results: make([]*pb.FaceResult, len(results))}
	for i, r := range results {
		out.Results[i] = faceResultMessage(r)
	}
	return out
}

// readIdentify reads everything of the request but its scope.
func readIdentify(req *pb.IdentifyRequest, q *matcher.IdentifyQuery) (err error) {
	if n := req.GetMaxCandidates(); n < 0 || n > index.MaxK {
		return &fieldError{errRange, "max_candidates", fmt.Sprintf("is %d; 0 (which means 1) to %d are allowed", n, index.MaxK)}
	}
	q.K = int(req.GetMaxCandidates())
	switch req.GetFacePolicy() {
	case pb.FacePolicy_FACE_POLICY_UNSPECIFIED, pb.FacePolicy_FACE_POLICY_DOMINANT:
	case pb.FacePolicy_FACE_POLICY_EACH:
		q.EachFace = true
	default:
		return &fieldError{errRange, "face_policy", fmt.Sprintf("is %d; FACE_POLICY_DOMINANT and FACE_POLICY_EACH are known", req.GetFacePolicy())}
	}
	q.Probe, err = readProbe("probe", req.GetProbe())
	return err
}

// maxModelID bounds the model id of an embedding: a name and a hash.
const maxModelID = 200

// readProbe reads a probe. Its bytes are the message's and are not copied. An
// image of no bytes is an empty image, not a missing one.
func readProbe(field string, p *pb.Probe) (matcher.Probe, error) {
	switch k := p.GetKind().(type) {
	case *pb.Probe_Image:
		return matcher.Probe{Image: present(k.Image.GetData())}, nil
	case *pb.Probe_Crop:
		switch c := k.Crop.GetPixels().(type) {
		case *pb.FaceCrop_Encoded:
			return matcher.Probe{CropEncoded: present(c.Encoded)}, nil
		case *pb.FaceCrop_Rgb:
			return matcher.Probe{CropRGB: present(c.Rgb)}, nil
		}
		return matcher.Probe{}, &fieldError{errMissing, field + ".crop", "is empty: set encoded or rgb"}
	case *pb.Probe_Embedding:
		if id := k.Embedding.GetModelId(); id == "" || len(id) > maxModelID {
			return matcher.Probe{}, &fieldError{errMissing, field + ".embedding.model_id", "is required: the model's id as GetServerInfo tells it"}
		}
		return matcher.Probe{Embedding: matcher.EmbeddingProbe{ModelID: k.Embedding.GetModelId(), Vector: k.Embedding.GetVector()}}, nil
	}
	return matcher.Probe{}, &fieldError{errMissing, field, "is required: an image, a crop or an embedding"}
}

// present is b, not nil.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// decision is a Decision message with what it points to, in one piece of memory.
type decision struct {
	pb.Decision
	score float64
	time  timestamppb.Timestamp
}

func decisionMessage(d matcher.Decision) *pb.Decision { return new(decision).fill(d) }

// fill writes d to the message.
func (m *decision) fill(d matcher.Decision) *pb.Decision {
	out := &m.Decision
	out.Outcome, out.Threshold, out.ScopeEpoch = outcomeMessage(d.Outcome), float64(d.Threshold), uint64(d.Epoch)
	out.ModelId, out.Alternative = d.ModelID, d.Alternative
	out.Face, out.Findings = faceMessage(d.Face), findingMessages(d.Findings)
	if !d.Time.IsZero() {
		m.time.Seconds, m.time.Nanos = d.Time.Unix(), int32(d.Time.Nanosecond())
		out.DecideTime = &m.time
	}
	if d.HasScore {
		m.score = float64(d.Score)
		out.Score = &m.score
	}
	m.label(d)
	return out
}

// label writes the decision's id and names. They are pieces of one string: the
// id, then the name of the template, of which those of the subject and of the
// scope are the beginnings.
func (m *decision) label(d matcher.Decision) {
	var room [36 + maxName]byte
	b := room[:0]
	for i, part := range [...][]byte{d.ID[:4], d.ID[4:6], d.ID[6:8], d.ID[8:10], d.ID[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	id := len(b)
	b = append(append(b, "tenants/"...), d.Scope.Tenant...)
	b = append(append(b, "/scopes/"...), d.Scope.Scope...)
	ref := len(b)
	b = append(append(b, "/subjects/"...), d.Subject...)
	subject := len(b)
	b = append(b, "/templates/"...)
	b = strconv.AppendUint(b, uint64(d.Template), 10)
	if d.Outcome != matcher.Match {
		b = b[:ref]
	}
	text := string(b)
	m.DecisionId, m.Scope = text[:id], text[id:ref]
	if d.Outcome == matcher.Match {
		m.Subject, m.Template = text[id:subject], text[id:]
	}
}

func outcomeMessage(o matcher.Outcome) pb.Outcome {
	switch o {
	case matcher.Match:
		return pb.Outcome_OUTCOME_MATCH
	case matcher.NoMatch:
		return pb.Outcome_OUTCOME_NO_MATCH
	case matcher.UseAlternative:
		return pb.Outcome_OUTCOME_USE_ALTERNATIVE
	}
	return pb.Outcome_OUTCOME_UNSPECIFIED
}

func faceResultMessage(r matcher.FaceResult) *pb.FaceResult {
	out := &pb.FaceResult{Decision: decisionMessage(r.Decision)}
	for _, c := range r.Candidates {
		out.Candidates = append(out.Candidates, &pb.Candidate{
			Subject:  subjectName(r.Decision.Scope, c.Subject),
			Template: templateName(r.Decision.Scope, c.Subject, c.Template),
			Score:    float64(c.Score),
		})
	}
	return out
}
