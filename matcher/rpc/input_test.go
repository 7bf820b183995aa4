package rpc

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"image"
	"image/gif"
	"image/jpeg"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"encoding/binary"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// fault is one bad request and how it is refused.
type fault struct {
	name  string
	call  func() error
	code  codes.Code
	why   string
	field string // that BadRequest names; "" where none is
}

func (w *world) faults(all []fault) {
	w.t.Helper()
	for _, f := range all {
		err := f.call()
		w.want(f.name, err, f.code, f.why)
		got := fieldsOf(err)
		if f.field == "" && len(got) != 0 || f.field != "" && !slices.Contains(got, f.field) {
			w.t.Errorf("%s: BadRequest names %q, want %q (%v)", f.name, got, f.field, err)
		}
	}
}

const bad = codes.InvalidArgument

// bombPNG says that it has 60,000 x 60,000 pixels, in 45 bytes.
func bombPNG() []byte {
	b := []byte("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		body := append([]byte(kind), data...)
		b = binary.BigEndian.AppendUint32(append(b, body...), crc32.ChecksumIEEE(body))
	}
	head := binary.BigEndian.AppendUint32(nil, 60_000)
	head = append(binary.BigEndian.AppendUint32(head, 60_000), 8, 2, 0, 0, 0)
	chunk("IHDR", head)
	chunk("IDAT", nil)
	chunk("IEND", nil)
	return b
}

func TestBadProbes(t *testing.T) {
	w := newWorld(t)
	gate, desk := w.match("gate"), w.enroll("enroller")
	good := picture(t, 1, 0, 1)
	var asGIF, asJPEG bytes.Buffer
	w.ok(gif.Encode(&asGIF, image.NewGray(image.Rect(0, 0, 200, 200)), nil))
	w.ok(jpeg.Encode(&asJPEG, image.NewGray(image.Rect(0, 0, 113, 112)), nil))
	values := func(change func([]float32)) []float32 { v := embeddingOf(1, 0); change(v); return v }
	id := fakeModelID()
	crop := func(pixels any) *pb.Probe {
		c := &pb.FaceCrop{}
		switch p := pixels.(type) {
		case string:
			c.Pixels = &pb.FaceCrop_Encoded{Encoded: []byte(p)}
		case []byte:
			c.Pixels = &pb.FaceCrop_Rgb{Rgb: p}
		}
		return &pb.Probe{Kind: &pb.Probe_Crop{Crop: c}}
	}
	for _, tc := range []struct {
		name  string
		probe *pb.Probe
		code  codes.Code
		why   string
		field string // below the probe
	}{
		{"no probe", nil, bad, "FIELD_MISSING", ""},
		{"empty probe", &pb.Probe{}, bad, "FIELD_MISSING", ""},
		{"image of no bytes", imageProbe(nil), bad, "IMAGE_EMPTY", ""},
		{"image without message", &pb.Probe{Kind: &pb.Probe_Image{}}, bad, "IMAGE_EMPTY", ""},
		{"text as image", imageProbe([]byte("hello, this is no picture at all")), bad, "IMAGE_FORMAT", ""},
		{"GIF", imageProbe(asGIF.Bytes()), bad, "IMAGE_FORMAT", ""},
		{"PGM", imageProbe([]byte("P5 2 2 255 abcd")), bad, "IMAGE_FORMAT", ""},
		{"cut PNG", imageProbe(good[:len(good)/2]), bad, "IMAGE_TRUNCATED", ""},
		{"bomb", imageProbe(bombPNG()), bad, "IMAGE_TOO_LARGE", ""},
		{"too many bytes", imageProbe(append(slices.Clone(good), make([]byte, 17<<20)...)), bad, "IMAGE_TOO_LARGE", ""},
		{"crop without pixels", crop(nil), bad, "FIELD_MISSING", ".crop"},
		{"crop without message", &pb.Probe{Kind: &pb.Probe_Crop{}}, bad, "FIELD_MISSING", ".crop"},
		{"encoded crop of no bytes", crop(""), bad, "IMAGE_EMPTY", ""},
		{"crop of the wrong size", crop(asJPEG.String()), bad, "CROP_SIZE", ""},
		{"raw crop one byte short", crop(pixels(1, 0)[1:]), bad, "CROP_SIZE", ""},
		{"raw crop of no bytes", crop([]byte{}), bad, "CROP_SIZE", ""},
		{"embedding without message", &pb.Probe{Kind: &pb.Probe_Embedding{}}, bad, "FIELD_MISSING", ".embedding.model_id"},
		{"embedding without model", vectorProbe("", embeddingOf(1, 0)...), bad, "FIELD_MISSING", ".embedding.model_id"},
		{"huge model id", vectorProbe(strings.Repeat("m", 1<<20), embeddingOf(1, 0)...), bad, "FIELD_MISSING", ".embedding.model_id"},
		{"other model", vectorProbe("other@0123456789ab", embeddingOf(1, 0)...), codes.FailedPrecondition, "MODEL_MISMATCH", ""},
		{"short embedding", vectorProbe(id, embeddingOf(1, 0)[1:]...), bad, "EMBEDDING_LENGTH", ""},
		{"embedding of no bytes", vectorProbe(id), bad, "EMBEDDING_LENGTH", ""},
		{"long embedding", vectorProbe(id, append(embeddingOf(1, 0), 1)...), bad, "EMBEDDING_LENGTH", ""},
		{"NaN", vectorProbe(id, values(func(v []float32) { v[3] = float32(math.NaN()) })...), bad, "EMBEDDING_NOT_FINITE", ""},
		{"infinity", vectorProbe(id, values(func(v []float32) { v[127] = float32(math.Inf(-1)) })...), bad, "EMBEDDING_NOT_FINITE", ""},
		{"zero", vectorProbe(id, make([]float32, testDim)...), bad, "EMBEDDING_ZERO", ""},
		{"denormal", vectorProbe(id, values(func(v []float32) { clear(v); v[0] = math.SmallestNonzeroFloat32 })...), bad, "EMBEDDING_ZERO", ""},
	} {
		w.faults([]fault{
			{tc.name + " (Verify)", func() error {
				_, err := gate.Verify(w.ctx(), &pb.VerifyRequest{Subject: "v-1", Probe: tc.probe})
				return err
			}, tc.code, tc.why, "probe" + tc.field},
			{tc.name + " (Identify)", func() error {
				_, err := gate.Identify(w.ctx(), &pb.IdentifyRequest{Probe: tc.probe})
				return err
			}, tc.code, tc.why, "probe" + tc.field},
			{tc.name + " (Enroll)", func() error {
				_, err := desk.Enroll(w.ctx(), w.enrollment("v-1", cropOf(1, 0), tc.probe))
				return err
			}, tc.code, tc.why, "probes[1]" + tc.field},
		})
	}
	w.faults([]fault{
		{"no face", func() error {
			_, err := desk.Enroll(w.ctx(), w.enrollment("v-1", imageProbe(picture(t, 1, 0, 0))))
			return err
		}, bad, "NO_FACE", "probes[0]"},
		{"two faces", func() error {
			_, err := desk.Enroll(w.ctx(), w.enrollment("v-1", cropOf(1, 0), imageProbe(picture(t, 1, 0, 2))))
			return err
		}, bad, "MANY_FACES", "probes[1]"},
		{"black crop", func() error {
			_, err := desk.Enroll(w.ctx(), w.enrollment("v-1", crop(make([]byte, 112*112*3))))
			return err
		}, bad, "QUALITY_TOO_LOW", "probes[0]"},
	})
	list, err := desk.ListSubjects(w.ctx(), &pb.ListSubjectsRequest{})
	w.ok(err)
	if len(list.GetSubjects()) != 0 {
		t.Errorf("refused enrolments left %v", list.GetSubjects())
	}
}

func TestBadMatchRequests(t *testing.T) {
	w := newWorld(t)
	gate, both := w.match("gate"), w.match("both gate")
	verify := func(c pb.MatchServiceClient, subject string) func() error {
		return func() error {
			_, err := c.Verify(w.ctx(), &pb.VerifyRequest{Subject: subject, Probe: cropOf(1, 0)})
			return err
		}
	}
	identify := func(c pb.MatchServiceClient, change func(*pb.IdentifyRequest)) func() error {
		return func() error {
			req := &pb.IdentifyRequest{Probe: cropOf(1, 0)}
			change(req)
			_, err := c.Identify(w.ctx(), req)
			return err
		}
	}
	const inA = "tenants/fair/scopes/hall-a/subjects/"
	w.faults([]fault{
		{"no subject", verify(gate, ""), bad, "FIELD_MISSING", "subject"},
		{"id alone with two scopes", verify(both, "v-1"), bad, "SCOPE_REQUIRED", ""},
		{"upper case", verify(gate, "V-1"), bad, "BAD_NAME", "subject"},
		{"control character", verify(gate, "v\x001"), bad, "BAD_NAME", "subject"},
		{"dots", verify(gate, "../v-1"), bad, "BAD_NAME", "subject"},
		{"long id", verify(gate, strings.Repeat("v", 64)), bad, "BAD_NAME", "subject"},
		{"huge id", verify(gate, strings.Repeat("v", 1<<20)), bad, "BAD_NAME", "subject"},
		{"a scope's name", verify(gate, "tenants/fair/scopes/hall-a"), bad, "BAD_NAME", "subject"},
		{"a template's name", verify(gate, inA+"v-1/templates/1"), bad, "BAD_NAME", "subject"},
		{"leading slash", verify(gate, "/"+inA+"v-1"), bad, "BAD_NAME", "subject"},
		{"full resource name", verify(gate, "//menshen.io/"+inA+"v-1"), bad, "BAD_NAME", "subject"},
		{"trailing slash", verify(gate, inA+"v-1/"), bad, "BAD_NAME", "subject"},
		{"double slash", verify(gate, "tenants/fair//scopes/hall-a/subjects/v-1"), bad, "BAD_NAME", "subject"},
		{"wildcard", verify(gate, inA+"-"), bad, "BAD_NAME", "subject"},
		{"wildcard scope", verify(gate, "tenants/fair/scopes/-/subjects/v-1"), bad, "BAD_NAME", "subject"},
		{"dots inside", verify(gate, "tenants/fair/scopes/hall-b/../hall-a/subjects/v-1"), bad, "BAD_NAME", "subject"},
		{"wrong collection", verify(gate, "Tenants/fair/scopes/hall-a/subjects/v-1"), bad, "BAD_NAME", "subject"},
		{"escaped", verify(gate, "tenants%2Ffair%2Fscopes%2Fhall-a%2Fsubjects%2Fv-1"), bad, "BAD_NAME", "subject"},
		{"no scope with two", identify(both, func(*pb.IdentifyRequest) {}), bad, "SCOPE_REQUIRED", ""},
		{"scope id alone", identify(gate, func(r *pb.IdentifyRequest) { r.Scope = "hall-a" }), bad, "BAD_NAME", "scope"},
		{"negative candidates", identify(gate, func(r *pb.IdentifyRequest) { r.MaxCandidates = -1 }), bad, "OUT_OF_RANGE", "max_candidates"},
		{"101 candidates", identify(gate, func(r *pb.IdentifyRequest) { r.MaxCandidates = 101 }), bad, "OUT_OF_RANGE", "max_candidates"},
		{"most candidates", identify(gate, func(r *pb.IdentifyRequest) { r.MaxCandidates = math.MaxInt32 }), bad, "OUT_OF_RANGE", "max_candidates"},
		{"unknown policy", identify(gate, func(r *pb.IdentifyRequest) { r.FacePolicy = 77 }), bad, "OUT_OF_RANGE", "face_policy"},
		{"negative policy", identify(gate, func(r *pb.IdentifyRequest) { r.FacePolicy = -1 }), bad, "OUT_OF_RANGE", "face_policy"},
	})
	if w.models.runs.Load() != 0 {
		t.Error("a model ran for a request that was refused")
	}
	_, err := both.Identify(w.ctx(), &pb.IdentifyRequest{Scope: "tenants/fair/scopes/hall-b", Probe: cropOf(1, 0), MaxCandidates: 100})
	w.ok(err)
}

func TestBadEnrollments(t *testing.T) {
	w := newWorld(t)
	desk := w.enroll("enroller")
	_, err := desk.Enroll(w.ctx(), w.enrollment("there", cropOf(1, 0)))
	w.ok(err)
	enroll := func(change func(*pb.EnrollRequest)) func() error {
		return func() error {
			req := w.enrollment("v-1", cropOf(1, 0))
			change(req)
			_, err := desk.Enroll(w.ctx(), req)
			return err
		}
	}
	long := strings.Repeat("x", 5000)
	w.faults([]fault{
		{"no consent", enroll(func(r *pb.EnrollRequest) { r.Consent = nil }), bad, "INVALID_FIELD", "consent.reference"},
		{"empty reference", enroll(func(r *pb.EnrollRequest) { r.Consent.Reference = "" }), bad, "INVALID_FIELD", "consent.reference"},
		{"long reference", enroll(func(r *pb.EnrollRequest) { r.Consent.Reference = long }), bad, "INVALID_FIELD", "consent.reference"},
		{"control character", enroll(func(r *pb.EnrollRequest) { r.Consent.Reference = "form\x1b[2J" }), bad, "INVALID_FIELD", "consent.reference"},
		{"no notice", enroll(func(r *pb.EnrollRequest) { r.Consent.NoticeVersion = "" }), bad, "INVALID_FIELD", "consent.notice_version"},
		{"no time", enroll(func(r *pb.EnrollRequest) { r.Consent.GiveTime = nil }), bad, "INVALID_FIELD", "consent.give_time"},
		{"future time", enroll(func(r *pb.EnrollRequest) { r.Consent.GiveTime = timestamppb.New(time.Now().Add(time.Hour)) }), bad, "INVALID_FIELD", "consent.give_time"},
		{"time out of range", enroll(func(r *pb.EnrollRequest) { r.Consent.GiveTime = &timestamppb.Timestamp{Seconds: math.MaxInt64} }), bad, "INVALID_FIELD", "consent.give_time"},
		{"nanos out of range", enroll(func(r *pb.EnrollRequest) { r.Consent.GiveTime = &timestamppb.Timestamp{Nanos: -1} }), bad, "INVALID_FIELD", "consent.give_time"},
		{"minor alone", enroll(func(r *pb.EnrollRequest) { r.Consent.Minor = true }), bad, "INVALID_FIELD", "consent.guardian_reference"},
		{"no probes", enroll(func(r *pb.EnrollRequest) { r.Probes = nil }), bad, "OUT_OF_RANGE", "probes"},
		{"eleven probes", enroll(func(r *pb.EnrollRequest) { r.Probes = slices.Repeat([]*pb.Probe{cropOf(1, 0)}, 11) }), bad, "OUT_OF_RANGE", "probes"},
		{"more than the scope allows", enroll(func(r *pb.EnrollRequest) { r.Probes = slices.Repeat([]*pb.Probe{cropOf(1, 0)}, 6) }), codes.FailedPrecondition, "TOO_MANY_TEMPLATES", ""},
		{"bad subject", enroll(func(r *pb.EnrollRequest) { r.SubjectId = "Alice Smith" }), bad, "INVALID_FIELD", "subject_id"},
		{"name as id", enroll(func(r *pb.EnrollRequest) { r.SubjectId = "tenants/fair/scopes/hall-b/subjects/v-1" }), bad, "INVALID_FIELD", "subject_id"},
		{"expiry in the past", enroll(func(r *pb.EnrollRequest) { r.ExpireTime = timestamppb.New(time.Unix(0, 0)) }), bad, "INVALID_FIELD", "expire_time"},
		{"expiry after the scope", enroll(func(r *pb.EnrollRequest) { r.ExpireTime = timestamppb.New(time.Now().Add(1000 * time.Hour)) }), bad, "INVALID_FIELD", "expire_time"},
		{"expiry out of range", enroll(func(r *pb.EnrollRequest) { r.ExpireTime = &timestamppb.Timestamp{Seconds: math.MinInt64} }), bad, "INVALID_FIELD", "expire_time"},
		{"exists", enroll(func(r *pb.EnrollRequest) { r.SubjectId = "there" }), codes.AlreadyExists, "SUBJECT_EXISTS", ""},
		{"add to nobody", enroll(func(r *pb.EnrollRequest) { r.AddTemplates = true }), codes.NotFound, "SUBJECT_NOT_FOUND", ""},
		{"bad request id", enroll(func(r *pb.EnrollRequest) { r.RequestId = "a b" }), bad, "BAD_REQUEST_ID", "request_id"},
		{"long request id", enroll(func(r *pb.EnrollRequest) { r.RequestId = strings.Repeat("r", 65) }), bad, "BAD_REQUEST_ID", "request_id"},
		{"bad parent", enroll(func(r *pb.EnrollRequest) { r.Parent = "hall-a" }), bad, "BAD_NAME", "parent"},
		{"get nothing", func() error { _, err := desk.GetSubject(w.ctx(), &pb.GetSubjectRequest{}); return err }, bad, "FIELD_MISSING", "name"},
		{"delete nothing", func() error { _, err := desk.DeleteSubject(w.ctx(), &pb.DeleteSubjectRequest{}); return err }, bad, "FIELD_MISSING", "name"},
		{"withdraw nothing", func() error { _, err := desk.WithdrawConsent(w.ctx(), &pb.WithdrawConsentRequest{}); return err }, bad, "FIELD_MISSING", "name"},
		{"delete no template", func() error { _, err := desk.DeleteTemplate(w.ctx(), &pb.DeleteTemplateRequest{}); return err }, bad, "FIELD_MISSING", "name"},
	})
	for _, number := range []string{"0", "-1", "+1", "01", "1 ", "4294967296", "one", "", "1/", "1/templates/1", "0x1", "１"} {
		_, err := desk.DeleteTemplate(w.ctx(), &pb.DeleteTemplateRequest{Name: "tenants/fair/scopes/hall-a/subjects/there/templates/" + number})
		w.want("template "+number, err, bad, "BAD_NAME")
	}
	_, err = desk.DeleteTemplate(w.ctx(), &pb.DeleteTemplateRequest{Name: "tenants/fair/scopes/hall-a/subjects/there/templates/9"})
	w.want("no such template", err, codes.NotFound, "TEMPLATE_NOT_FOUND")
}

func TestBadScopes(t *testing.T) {
	w := newWorld(t)
	operator := w.scopes("operator")
	create := func(change func(*pb.CreateScopeRequest)) func() error {
		return func() error {
			req := &pb.CreateScopeRequest{ScopeId: "hall-c", Scope: w.settings()}
			change(req)
			_, err := operator.CreateScope(w.ctx(), req)
			return err
		}
	}
	settings := func(change func(*pb.Scope)) func() error {
		return create(func(r *pb.CreateScopeRequest) { change(r.Scope) })
	}
	w.faults([]fault{
		{"no id", create(func(r *pb.CreateScopeRequest) { r.ScopeId = "" }), bad, "BAD_NAME", "scope_id"},
		{"upper case", create(func(r *pb.CreateScopeRequest) { r.ScopeId = "Hall" }), bad, "BAD_NAME", "scope_id"},
		{"slash", create(func(r *pb.CreateScopeRequest) { r.ScopeId = "hall/c" }), bad, "BAD_NAME", "scope_id"},
		{"zero byte", create(func(r *pb.CreateScopeRequest) { r.ScopeId = "hall\x00c" }), bad, "BAD_NAME", "scope_id"},
		{"used id", create(func(r *pb.CreateScopeRequest) { r.ScopeId = "hall-a" }), codes.AlreadyExists, "SCOPE_ID_USED", ""},
		{"no settings", create(func(r *pb.CreateScopeRequest) { r.Scope = nil }), bad, "INVALID_FIELD", "scope.purpose"},
		{"bad parent", create(func(r *pb.CreateScopeRequest) { r.Parent = "fair" }), bad, "BAD_NAME", "parent"},
		{"no alternative", settings(func(s *pb.Scope) { s.Alternative = "" }), bad, "INVALID_FIELD", "scope.alternative"},
		{"no end", settings(func(s *pb.Scope) { s.EndTime = nil }), bad, "INVALID_FIELD", "scope.end_time"},
		{"past end", settings(func(s *pb.Scope) { s.EndTime = timestamppb.New(time.Now().Add(-time.Hour)) }), bad, "INVALID_FIELD", "scope.end_time"},
		{"end out of range", settings(func(s *pb.Scope) { s.EndTime = &timestamppb.Timestamp{Seconds: 1 << 60} }), bad, "INVALID_FIELD", "scope.end_time"},
		{"far end", settings(func(s *pb.Scope) { s.EndTime = timestamppb.New(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)) }), bad, "INVALID_FIELD", "scope.end_time"},
		{"negative retention", settings(func(s *pb.Scope) { s.Retention = durationpb.New(-time.Hour) }), bad, "INVALID_FIELD", "scope.retention"},
		{"endless retention", settings(func(s *pb.Scope) { s.Retention = &durationpb.Duration{Seconds: math.MaxInt64} }), bad, "INVALID_FIELD", "scope.retention"},
		{"malformed retention", settings(func(s *pb.Scope) { s.Retention = &durationpb.Duration{Seconds: 1, Nanos: -1} }), bad, "INVALID_FIELD", "scope.retention"},
		{"NaN threshold", settings(func(s *pb.Scope) { s.VerifyThreshold = math.NaN() }), bad, "INVALID_FIELD", "scope.verify_threshold"},
		{"infinite threshold", settings(func(s *pb.Scope) { s.IdentifyThreshold = math.Inf(1) }), bad, "INVALID_FIELD", "scope.identify_threshold"},
		{"negative threshold", settings(func(s *pb.Scope) { s.IdentifyThreshold = -0.1 }), bad, "INVALID_FIELD", "scope.identify_threshold"},
		{"threshold above 1", settings(func(s *pb.Scope) { s.VerifyThreshold = 1.0001 }), bad, "INVALID_FIELD", "scope.verify_threshold"},
		{"negative templates", settings(func(s *pb.Scope) { s.MaxTemplatesPerSubject = -1 }), bad, "INVALID_FIELD", "scope.max_templates_per_subject"},
		{"eleven templates", settings(func(s *pb.Scope) { s.MaxTemplatesPerSubject = 11 }), bad, "INVALID_FIELD", "scope.max_templates_per_subject"},
		{"long purpose", settings(func(s *pb.Scope) { s.Purpose = strings.Repeat("p", 1001) }), bad, "INVALID_FIELD", "scope.purpose"},
		{"control character", settings(func(s *pb.Scope) { s.Site = "hall\nA" }), bad, "INVALID_FIELD", "scope.site"},
		{"unknown preset", create(func(r *pb.CreateScopeRequest) { r.Preset = 77 }), bad, "INVALID_FIELD", "preset"},
		{"preset of a fair without its end", create(func(r *pb.CreateScopeRequest) {
			r.Preset, r.Scope.EndTime = pb.ScopePreset_SCOPE_PRESET_EXHIBITION, nil
		}), bad, "INVALID_FIELD", "scope.end_time"},
		{"get another form", func() error {
			_, err := operator.GetScope(w.ctx(), &pb.GetScopeRequest{Name: "scopes/hall-a"})
			return err
		}, bad, "BAD_NAME", "name"},
		{"get none", func() error { _, err := operator.GetScope(w.ctx(), &pb.GetScopeRequest{}); return err }, bad, "SCOPE_REQUIRED", ""},
		{"get unknown", func() error {
			_, err := operator.GetScope(w.ctx(), &pb.GetScopeRequest{Name: "tenants/fair/scopes/hall-z"})
			return err
		}, codes.NotFound, "SCOPE_NOT_FOUND", ""},
		{"revoke none", func() error { _, err := operator.RevokeScope(w.ctx(), &pb.RevokeScopeRequest{}); return err }, bad, "FIELD_MISSING", "name"},
		{"suspend none", func() error { _, err := operator.SuspendScope(w.ctx(), &pb.SuspendScopeRequest{}); return err }, bad, "FIELD_MISSING", "name"},
		{"resume none", func() error { _, err := operator.ResumeScope(w.ctx(), &pb.ResumeScopeRequest{}); return err }, bad, "FIELD_MISSING", "name"},
	})
	_, err := operator.CreateScope(w.ctx(), &pb.CreateScopeRequest{ScopeId: "hall-c"})
	if got := fieldsOf(err); len(got) < 5 {
		t.Errorf("a scope without settings: only %v named, want all at once", got)
	}
}

func TestFieldMasks(t *testing.T) {
	w := newWorld(t)
	operator := w.scopes("operator")
	update := func(s *pb.Scope, paths ...string) func() error {
		return func() error {
			req := &pb.UpdateScopeRequest{Scope: s, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}}
			_, err := operator.UpdateScope(w.ctx(), req)
			return err
		}
	}
	named := func() *pb.Scope { return &pb.Scope{Name: "tenants/fair/scopes/hall-a", Alternative: "the side door"} }
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprint("f", i)
	}
	w.faults([]fault{
		{"no name", update(&pb.Scope{}, "alternative"), bad, "FIELD_MISSING", "scope.name"},
		{"no scope", update(nil, "alternative"), bad, "FIELD_MISSING", "scope.name"},
		{"no mask", func() error {
			_, err := operator.UpdateScope(w.ctx(), &pb.UpdateScopeRequest{Scope: named()})
			return err
		}, bad, "BAD_FIELD_MASK", "update_mask"},
		{"empty mask", update(named()), bad, "BAD_FIELD_MASK", "update_mask"},
		{"star", update(named(), "*"), bad, "BAD_FIELD_MASK", "update_mask"},
		{"star and field", update(named(), "alternative", "*"), bad, "BAD_FIELD_MASK", "update_mask"},
		{"unknown path", update(named(), "alternative", "colour"), bad, "BAD_FIELD_MASK", "update_mask"},
		{"camel case", update(named(), "endTime"), bad, "BAD_FIELD_MASK", "update_mask"},
		{"path of the request", update(named(), "scope.alternative"), bad, "BAD_FIELD_MASK", "update_mask"},
		{"below a field", update(named(), "end_time.seconds"), bad, "BAD_FIELD_MASK", "update_mask"},
		{"empty path", update(named(), ""), bad, "BAD_FIELD_MASK", "update_mask"},
		{"huge path", update(named(), strings.Repeat("a", 1<<20)), bad, "BAD_FIELD_MASK", "update_mask"},
		{"many paths", update(named(), many...), bad, "BAD_FIELD_MASK", "update_mask"},
		{"set by the service", update(named(), "epoch"), bad, "INVALID_FIELD", "update_mask"},
		{"the name", update(named(), "name"), bad, "INVALID_FIELD", "update_mask"},
		{"the state", update(named(), "state"), bad, "INVALID_FIELD", "update_mask"},
		{"what people agreed to", update(named(), "purpose"), bad, "INVALID_FIELD", "update_mask"},
		{"cleared alternative", update(&pb.Scope{Name: named().GetName()}, "alternative"), bad, "INVALID_FIELD", "scope.alternative"},
		{"later end", update(&pb.Scope{Name: named().GetName(), EndTime: timestamppb.New(time.Now().Add(1000 * time.Hour))}, "end_time"), bad, "INVALID_FIELD", "scope.end_time"},
		{"malformed end", update(&pb.Scope{Name: named().GetName(), EndTime: &timestamppb.Timestamp{Nanos: -5}}, "end_time"), bad, "INVALID_FIELD", "scope.end_time"},
	})
	before, err := operator.GetScope(w.ctx(), &pb.GetScopeRequest{Name: named().GetName()})
	w.ok(err)
	if before.GetScope().GetAlternative() != "the staffed lane" {
		t.Errorf("a refused update changed the scope: %v", before)
	}
	s := named()
	s.EndTime, s.Retention, s.Site = &timestamppb.Timestamp{Nanos: -5}, durationpb.New(-1), "elsewhere" // not in the mask
	got, err := operator.UpdateScope(w.ctx(), &pb.UpdateScopeRequest{Scope: s, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"alternative", "alternative"}}})
	w.ok(err)
	if got.GetScope().GetAlternative() != "the side door" || got.GetScope().GetSite() != "hall A" {
		t.Errorf("UpdateScope = %v", got)
	}
}

func TestBadAdministration(t *testing.T) {
	w := newWorld(t)
	admin := w.administer("admin")
	tenant := func(id, display string) func() error {
		return func() error {
			_, err := admin.CreateTenant(w.ctx(), &pb.CreateTenantRequest{TenantId: id, Tenant: &pb.Tenant{DisplayName: display}})
			return err
		}
	}
	credential := func(parent string, c *pb.Credential) func() error {
		return func() error {
			_, err := admin.CreateCredential(w.ctx(), &pb.CreateCredentialRequest{Parent: parent, Credential: c})
			return err
		}
	}
	revoke := func(name string) func() error {
		return func() error {
			_, err := admin.RevokeCredential(w.ctx(), &pb.RevokeCredentialRequest{Name: name})
			return err
		}
	}
	gate := func(scopes ...string) *pb.Credential { return &pb.Credential{Role: pb.Role_ROLE_GATE, Scopes: scopes} }
	auditor := func(change func(*pb.Credential)) *pb.Credential {
		c := &pb.Credential{Role: pb.Role_ROLE_AUDITOR}
		change(c)
		return c
	}
	const fair = "tenants/fair"
	w.faults([]fault{
		{"no tenant id", tenant("", ""), bad, "INVALID_FIELD", "tenant_id"},
		{"bad tenant id", tenant("Fair!", ""), bad, "INVALID_FIELD", "tenant_id"},
		{"tenant exists", tenant("fair", ""), codes.AlreadyExists, "TENANT_EXISTS", ""},
		{"long display name", tenant("new", strings.Repeat("门", 201)), bad, "INVALID_FIELD", "tenant.display_name"},
		{"control character", tenant("new", "a\u0007b"), bad, "INVALID_FIELD", "tenant.display_name"},
		{"unknown tenant", func() error {
			_, err := admin.GetTenant(w.ctx(), &pb.GetTenantRequest{Name: "tenants/none"})
			return err
		}, codes.NotFound, "TENANT_NOT_FOUND", ""},
		{"no tenant of an admin's own", func() error { _, err := admin.GetTenant(w.ctx(), &pb.GetTenantRequest{}); return err }, bad, "TENANT_REQUIRED", ""},
		{"no credential", credential(fair, nil), bad, "INVALID_FIELD", "credential.role"},
		{"no role", credential(fair, &pb.Credential{}), bad, "INVALID_FIELD", "credential.role"},
		{"unknown role", credential(fair, &pb.Credential{Role: 42}), bad, "INVALID_FIELD", "credential.role"},
		{"negative role", credential(fair, &pb.Credential{Role: -1}), bad, "INVALID_FIELD", "credential.role"},
		{"role of 256 and one", credential(fair, &pb.Credential{Role: 257}), bad, "INVALID_FIELD", "credential.role"},
		{"admin of a tenant", credential(fair, &pb.Credential{Role: pb.Role_ROLE_PLATFORM_ADMIN}), bad, "INVALID_FIELD", "parent"},
		{"auditor of none", credential("", auditor(func(*pb.Credential) {})), bad, "INVALID_FIELD", "parent"},
		{"unknown parent", credential("tenants/none", auditor(func(*pb.Credential) {})), codes.NotFound, "TENANT_NOT_FOUND", ""},
		{"bad parent", credential("fair", auditor(func(*pb.Credential) {})), bad, "BAD_NAME", "parent"},
		{"gate without scopes", credential(fair, gate()), bad, "INVALID_FIELD", "credential.scopes"},
		{"malformed scope", credential(fair, gate("hall-a")), bad, "BAD_NAME", "credential.scopes[0]"},
		{"empty scope", credential(fair, gate("tenants/fair/scopes/hall-a", "")), bad, "FIELD_MISSING", "credential.scopes[1]"},
		{"missing scope", credential(fair, gate("tenants/fair/scopes/hall-z")), bad, "INVALID_FIELD", "credential.scopes[0]"},
		{"foreign scope", credential(fair, gate("tenants/gym/scopes/north")), bad, "INVALID_FIELD", "credential.scopes[0]"},
		{"scope twice", credential(fair, gate("tenants/fair/scopes/hall-a", "tenants/fair/scopes/hall-a")), bad, "INVALID_FIELD", "credential.scopes[1]"},
		{"thousands of scopes", credential(fair, gate(slices.Repeat([]string{"x"}, 10_000)...)), bad, "INVALID_FIELD", "credential.scopes"},
		{"scopes of an auditor", credential(fair, auditor(func(c *pb.Credential) { c.Scopes = []string{"tenants/fair/scopes/hall-a"} })), bad, "INVALID_FIELD", "credential.scopes"},
		{"expired", credential(fair, auditor(func(c *pb.Credential) { c.ExpireTime = timestamppb.New(time.Unix(0, 0)) })), bad, "INVALID_FIELD", "credential.expire_time"},
		{"expiry out of range", credential(fair, auditor(func(c *pb.Credential) { c.ExpireTime = &timestamppb.Timestamp{Seconds: math.MaxInt64} })), bad, "INVALID_FIELD", "credential.expire_time"},
		{"direction override", credential(fair, auditor(func(c *pb.Credential) { c.DisplayName = "a\u202eb" })), bad, "INVALID_FIELD", "credential.display_name"},
		{"revoke none", revoke(""), bad, "FIELD_MISSING", "name"},
		{"revoke an id", revoke(string(w.ids["gate"])), bad, "BAD_NAME", "name"},
		{"revoke a key", revoke("credentials/" + w.keys["gate"]), bad, "BAD_NAME", "name"},
		{"revoke a wildcard", revoke("tenants/fair/credentials/-"), bad, "BAD_NAME", "name"},
		{"revoke with slash", revoke("/credentials/" + string(w.ids["admin"])), bad, "BAD_NAME", "name"},
		{"revoke an unknown one", revoke("tenants/fair/credentials/aaaaaaaaaaaaaaaa"), codes.NotFound, "CREDENTIAL_NOT_FOUND", ""},
		{"revoke under another tenant", revoke("tenants/gym/credentials/" + string(w.ids["gate"])), codes.NotFound, "CREDENTIAL_NOT_FOUND", ""},
		{"revoke the last admin", revoke("credentials/" + string(w.ids["admin"])), codes.FailedPrecondition, "LAST_ADMIN", ""},
	})
	if got, err := admin.ListTenants(w.ctx(), &pb.ListTenantsRequest{}); err != nil || len(got.GetTenants()) != 2 {
		t.Errorf("tenants after refused calls: %v, %v", got, err)
	}
}

// The largest request id, and every printable character, is taken.
func TestLongestRequestID(t *testing.T) {
	w := newWorld(t)
	req := w.enrollment("v-1", cropOf(1, 0))
	req.RequestId = strings.Repeat("~", 64)
	_, err := w.enroll("enroller").Enroll(context.Background(), req)
	w.ok(err)
}
