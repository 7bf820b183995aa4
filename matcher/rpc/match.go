package rpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

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

func (s *matchServer) Verify(ctx context.Context, req *pb.VerifyRequest) (*pb.VerifyResponse, error) {
	return s.verify(ctx, callOf(ctx), req)
}

func (s *matchServer) Identify(ctx context.Context, req *pb.IdentifyRequest) (*pb.IdentifyResponse, error) {
	return s.identify(ctx, callOf(ctx), req)
}

func (s *matchServer) MatchStream(stream grpc.BidiStreamingServer[pb.MatchStreamRequest, pb.MatchStreamResponse]) error {
	c := callOf(stream.Context())
	p := pump[*pb.MatchStreamRequest, *pb.MatchStreamResponse]{
		stream: stream, width: s.width, draining: s.draining,
		check: func() error { return s.authority.Check(c.caller) },
		answer: func(ctx context.Context, req *pb.MatchStreamRequest) *pb.MatchStreamResponse {
			return s.answer(ctx, c, req)
		},
	}
	return p.run()
}

// answer works on one item of a MatchStream.
func (s *service) answer(ctx context.Context, c call, req *pb.MatchStreamRequest) *pb.MatchStreamResponse {
	out := &pb.MatchStreamResponse{SequenceId: req.GetSequenceId()}
	err := s.journal.guarded(ctx, c.method, func() error {
		switch r := req.GetRequest().(type) {
		case *pb.MatchStreamRequest_Verify:
			v, err := s.verify(ctx, c, r.Verify)
			out.Response = &pb.MatchStreamResponse_Verify{Verify: v}
			return err
		case *pb.MatchStreamRequest_Identify:
			v, err := s.identify(ctx, c, r.Identify)
			out.Response = &pb.MatchStreamResponse_Identify{Identify: v}
			return err
		}
		return &fieldError{errMissing, "request", "is required: verify or identify"}
	})
	if err != nil {
		out.Response = &pb.MatchStreamResponse_Error{Error: s.streamError(ctx, c.method, err)}
	}
	return out
}

func (s *service) verify(ctx context.Context, c call, req *pb.VerifyRequest) (*pb.VerifyResponse, error) {
	ref, id, err := c.subjectOf("subject", req.GetSubject())
	if err != nil {
		return nil, err
	}
	grant, err := c.grantFor(ref, scope.UseVerify)
	if err != nil {
		return nil, err
	}
	probe, err := readProbe("probe", req.GetProbe())
	if err != nil {
		return nil, err
	}
	d, err := s.matcher.Verify(ctx, grant, matcher.VerifyQuery{Subject: id, Probe: probe})
	if err != nil {
		return nil, err
	}
	return &pb.VerifyResponse{Decision: decisionMessage(d)}, nil
}

func (s *service) identify(ctx context.Context, c call, req *pb.IdentifyRequest) (*pb.IdentifyResponse, error) {
	ref, err := c.scopeOf("scope", req.GetScope())
	if err != nil {
		return nil, err
	}
	grant, err := c.grantFor(ref, scope.UseIdentify)
	if err != nil {
		return nil, err
	}
	q, err := readIdentify(req)
	if err != nil {
		return nil, err
	}
	results, err := s.matcher.Identify(ctx, grant, q)
	if err != nil {
		return nil, err
	}
	out := &pb.IdentifyResponse{Results: make([]*pb.FaceResult, len(results))}
	for i, r := range results {
		out.Results[i] = faceResultMessage(r)
	}
	return out, nil
}

// readIdentify reads everything of the request but its scope.
func readIdentify(req *pb.IdentifyRequest) (q matcher.IdentifyQuery, err error) {
	if n := req.GetMaxCandidates(); n < 0 || n > index.MaxK {
		return q, &fieldError{errRange, "max_candidates", fmt.Sprintf("is %d; 0 (which means 1) to %d are allowed", n, index.MaxK)}
	}
	q.K = int(req.GetMaxCandidates())
	switch req.GetFacePolicy() {
	case pb.FacePolicy_FACE_POLICY_UNSPECIFIED, pb.FacePolicy_FACE_POLICY_DOMINANT:
	case pb.FacePolicy_FACE_POLICY_EACH:
		q.EachFace = true
	default:
		return q, &fieldError{errRange, "face_policy", fmt.Sprintf("is %d; FACE_POLICY_DOMINANT and FACE_POLICY_EACH are known", req.GetFacePolicy())}
	}
	q.Probe, err = readProbe("probe", req.GetProbe())
	return q, err
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
		return matcher.Probe{Embedding: &matcher.EmbeddingProbe{ModelID: k.Embedding.GetModelId(), Vector: k.Embedding.GetVector()}}, nil
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

func decisionMessage(d matcher.Decision) *pb.Decision {
	out := &pb.Decision{
		Outcome: outcomeMessage(d.Outcome), Threshold: float64(d.Threshold), Scope: d.Scope.String(), ScopeEpoch: uint64(d.Epoch),
		DecisionId: d.ID, ModelId: d.ModelID, DecideTime: stamp(d.Time), Face: faceMessage(d.Face),
		Findings: findingMessages(d.Findings), Alternative: d.Alternative,
	}
	if d.HasScore {
		score := float64(d.Score)
		out.Score = &score
	}
	if d.Outcome == matcher.Match {
		out.Subject = subjectName(d.Scope, d.Subject)
		out.Template = templateName(d.Scope, d.Subject, d.Template)
	}
	return out
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
