package rpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/idempotency"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// enrollmentServer is the EnrollmentService.
type enrollmentServer struct {
	pb.UnimplementedEnrollmentServiceServer
	*service
}

func (s *enrollmentServer) Enroll(ctx context.Context, req *pb.EnrollRequest) (*pb.EnrollResponse, error) {
	return s.enroll(ctx, callOf(ctx), req, false)
}

// bulkDepth is how many times more items of a BulkEnroll are under way than of a
// MatchStream, in as much memory: each waits for the disk, and those who wait together
// share a sync. What that gains is in ARCHITECTURE.md.
const bulkDepth = 4

func (s *enrollmentServer) BulkEnroll(stream grpc.BidiStreamingServer[pb.BulkEnrollRequest, pb.BulkEnrollResponse]) error {
	c := callOf(stream.Context())
	p := pump[*pb.BulkEnrollRequest, *pb.BulkEnrollResponse]{
		stream: stream, width: bulkDepth * s.width, tokenBytes: (1 << 20) / bulkDepth, draining: s.draining,
		check: func() error { return c.check(s.authority) },
		answer: func(ctx context.Context, req *pb.BulkEnrollRequest) func() *pb.BulkEnrollResponse {
			resp := s.bulkItem(ctx, c, req)
			return func() *pb.BulkEnrollResponse { return resp }
		},
	}
	return p.run()
}

// bulkItem works on one item of a BulkEnroll stream.
func (s *service) bulkItem(ctx context.Context, c call, req *pb.BulkEnrollRequest) *pb.BulkEnrollResponse {
	out := &pb.BulkEnrollResponse{SequenceId: req.GetSequenceId()}
	err := s.journal.guarded(ctx, c.method, func() error {
		if req.GetEnroll() == nil {
			return &fieldError{errMissing, "enroll", "is required: the enrolment"}
		}
		as := c
		as.method = pb.EnrollmentService_Enroll_FullMethodName
		enrolled, err := account(ctx, s.acts, as, req.GetEnroll(), func(ctx context.Context) (*pb.EnrollResponse, error) {
			return s.enroll(ctx, c, req.GetEnroll(), true)
		})
		out.Result = &pb.BulkEnrollResponse_Enrolled{Enrolled: enrolled}
		return err
	})
	if err != nil {
		out.Result = &pb.BulkEnrollResponse_Error{Error: s.streamError(ctx, c.method, err)}
	}
	return out
}

// enroll is one enrolment. A patient one waits for a busy machine: its stream
// holds its sender back.
func (s *service) enroll(ctx context.Context, c call, req *pb.EnrollRequest, patient bool) (*pb.EnrollResponse, error) {
	ref, err := c.scopeOf("parent", req.GetParent())
	if err != nil {
		return nil, err
	}
	grant, err := c.grant(ref)
	if err != nil {
		return nil, err
	}
	e, err := readEnrollment(req)
	if err != nil {
		return nil, err
	}
	e.Patient = patient
	done, err := s.matcher.Enroll(ctx, grant, e)
	if err != nil {
		return nil, err
	}
	out := &pb.EnrollResponse{Subject: subjectMessage(done.Subject), ScopeEpoch: uint64(done.Epoch)}
	for _, r := range done.Reports {
		out.Reports = append(out.Reports, &pb.ProbeReport{Face: faceMessage(r.Face), Findings: findingMessages(r.Findings)})
	}
	return out, nil
}

// readEnrollment reads everything of the request but its scope. An item of a
// bulk enrolment has the fingerprint of the same Enroll call, so that either
// repeats the other.
func readEnrollment(req *pb.EnrollRequest) (e matcher.Enrollment, err error) {
	if n := len(req.GetProbes()); n == 0 || n > matcher.MaxTemplates {
		return e, &fieldError{errRange, "probes", fmt.Sprintf("has %d entries; 1 to %d are allowed", n, matcher.MaxTemplates)}
	}
	var v violations
	e = matcher.Enrollment{
		Subject: scope.SubjectID(req.GetSubjectId()), Consent: readConsent(&v, req.GetConsent()),
		ExpireTime: v.time("expire_time", req.GetExpireTime()), AddTemplates: req.GetAddTemplates(),
	}
	if err := v.err(); err != nil {
		return e, err
	}
	for i, p := range req.GetProbes() {
		probe, err := readProbe(fmt.Sprintf("probes[%d]", i), p)
		if err != nil {
			return e, err
		}
		e.Probes = append(e.Probes, probe)
	}
	e.Request, err = requestOf(pb.EnrollmentService_Enroll_FullMethodName, req)
	return e, err
}

func readConsent(v *violations, c *pb.Consent) matcher.Consent {
	return matcher.Consent{
		Reference: c.GetReference(), GiveTime: v.time("consent.give_time", c.GetGiveTime()), NoticeVersion: c.GetNoticeVersion(),
		Minor: c.GetMinor(), GuardianReference: c.GetGuardianReference(), Transmission: c.GetTransmission(),
	}
}

func (s *enrollmentServer) GetSubject(ctx context.Context, req *pb.GetSubjectRequest) (*pb.GetSubjectResponse, error) {
	grant, id, err := s.subject(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	subject, err := s.matcher.Subject(ctx, grant, id)
	if err != nil {
		return nil, err
	}
	return &pb.GetSubjectResponse{Subject: subjectMessage(subject)}, nil
}

func (s *enrollmentServer) ListSubjects(ctx context.Context, req *pb.ListSubjectsRequest) (*pb.ListSubjectsResponse, error) {
	c := callOf(ctx)
	ref, err := c.scopeOf("parent", req.GetParent())
	if err != nil {
		return nil, err
	}
	grant, err := c.grant(ref)
	if err != nil {
		return nil, err
	}
	p, err := openPage(req.GetPageSize(), req.GetPageToken(), c.method, ref.String())
	if err != nil {
		return nil, err
	}
	found, err := s.matcher.Subjects(ctx, grant, scope.SubjectID(p.after), p.limit())
	if err != nil {
		return nil, err
	}
	out := &pb.ListSubjectsResponse{}
	found, out.NextPageToken = cut(p, found, func(s matcher.Subject) string { return string(s.ID) })
	for _, subject := range found {
		out.Subjects = append(out.Subjects, subjectMessage(subject))
	}
	return out, nil
}

func (s *enrollmentServer) DeleteTemplate(ctx context.Context, req *pb.DeleteTemplateRequest) (*pb.DeleteTemplateResponse, error) {
	ref, id, n, err := parseTemplate("name", req.GetName())
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	grant, err := c.grant(ref)
	if err != nil {
		return nil, err
	}
	r, err := requestOf(c.method, req)
	if err != nil {
		return nil, err
	}
	done, err := s.matcher.DeleteTemplate(ctx, grant, id, n, r)
	if err != nil {
		return nil, err
	}
	return &pb.DeleteTemplateResponse{ScopeEpoch: uint64(done.Epoch), Receipt: receiptName(ref.Tenant, done.Receipt)}, nil
}

func (s *enrollmentServer) DeleteSubject(ctx context.Context, req *pb.DeleteSubjectRequest) (*pb.DeleteSubjectResponse, error) {
	done, name, err := s.erase(ctx, req.GetName(), req, s.matcher.DeleteSubject)
	if err != nil {
		return nil, err
	}
	return &pb.DeleteSubjectResponse{TemplatesErased: int32(done.Templates), ScopeEpoch: uint64(done.Epoch), Receipt: name}, nil
}

func (s *enrollmentServer) WithdrawConsent(ctx context.Context, req *pb.WithdrawConsentRequest) (*pb.WithdrawConsentResponse, error) {
	done, name, err := s.erase(ctx, req.GetName(), req, s.matcher.WithdrawConsent)
	if err != nil {
		return nil, err
	}
	return &pb.WithdrawConsentResponse{TemplatesErased: int32(done.Templates), ScopeEpoch: uint64(done.Epoch), Receipt: name}, nil
}

// eraser is one of the matcher's two ways to erase a subject.
type eraser func(context.Context, scope.Grant, scope.SubjectID, idempotency.Request) (matcher.Erasure, error)

// erase also returns the name of the receipt.
func (s *enrollmentServer) erase(ctx context.Context, name string, req identified, erase eraser) (matcher.Erasure, string, error) {
	grant, id, err := s.subject(ctx, name)
	if err != nil {
		return matcher.Erasure{}, "", err
	}
	r, err := requestOf(callOf(ctx).method, req)
	if err != nil {
		return matcher.Erasure{}, "", err
	}
	done, err := erase(ctx, grant, id, r)
	return done, receiptName(grant.Ref().Tenant, done.Receipt), err
}

// subject reads a subject's name and authorises the call for its scope.
func (s *enrollmentServer) subject(ctx context.Context, name string) (scope.Grant, scope.SubjectID, error) {
	ref, id, err := parseSubject("name", name)
	if err != nil {
		return scope.Grant{}, "", err
	}
	grant, err := callOf(ctx).grant(ref)
	return grant, id, err
}

func subjectMessage(s matcher.Subject) *pb.Subject {
	out := &pb.Subject{
		Name: subjectName(s.Ref, s.ID), Consent: consentMessage(s.Consent),
		CreateTime: stamp(s.CreateTime), ExpireTime: stamp(s.ExpireTime),
	}
	for _, t := range s.Templates {
		out.Templates = append(out.Templates, &pb.Template{
			Name: templateName(s.Ref, s.ID, t.ID), ModelId: t.ModelID, CreateTime: stamp(t.CreateTime),
		})
	}
	return out
}

func consentMessage(c matcher.Consent) *pb.Consent {
	return &pb.Consent{
		Reference: c.Reference, GiveTime: stamp(c.GiveTime), NoticeVersion: c.NoticeVersion,
		Minor: c.Minor, GuardianReference: c.GuardianReference, Transmission: c.Transmission,
	}
}
