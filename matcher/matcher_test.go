package matcher

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/quality"
)

func request() idempotency.Request { return idempotency.Request{} }

func expect(t *testing.T, d Decision, want Outcome, who scope.SubjectID) {
	t.Helper()
	if d.Outcome != want || d.Subject != who {
		t.Fatalf("got %v of %q with score %v, want %v of %q", d.Outcome, d.Subject, d.Score, want, who)
	}
}

func TestTour(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	for i := range 20 {
		w.enroll(hallA, subjectID(i), cropOf(uint16(i), 0))
	}
	for name, probe := range map[string]Probe{"crop": cropOf(7, 1), "vector": vectorOf(7, 1), "image": imageOf(t, 7, 1, 1)} {
		d := w.verify(hallA, subjectID(7), probe)
		expect(t, d, Match, subjectID(7))
		if d.Template != 1 || d.Threshold != 0.6 || !d.HasScore || d.Score < 0.6 || d.ID == uuid.Nil || d.Scope != hallA || d.Epoch != 21 {
			t.Errorf("%s: decision is incomplete: %+v", name, d)
		}
		if (d.Face != nil) != (name == "image") {
			t.Errorf("%s: face = %v", name, d.Face)
		}
		expect(t, w.verify(hallA, subjectID(8), probe), NoMatch, "")
		expect(t, w.identify(hallA, probe), Match, subjectID(7))
	}
	expect(t, w.identify(hallA, cropOf(500, 1)), NoMatch, "")
	w.restart()
	expect(t, w.identify(hallA, cropOf(19, 2)), Match, subjectID(19))
	if e := w.enroll(hallA, "late", cropOf(77, 0)); e.Epoch != 22 {
		t.Errorf("epoch after the restart is %d, want 22", e.Epoch)
	}
}

func TestTopCandidates(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	w.enroll(hallA, "one", cropOf(1, 0), cropOf(1, 1))
	w.enroll(hallA, "twin", cropOf(1, 2))
	w.enroll(hallA, "other", cropOf(2, 0))
	r, err := w.Identify(context.Background(), grant(hallA), IdentifyQuery{Probe: cropOf(1, 1), K: 5})
	must(t, err)
	if c := r[0].Candidates; len(c) != 2 || c[0].Subject != "one" || c[0].Template != 2 || c[1].Subject != "twin" {
		t.Fatalf("candidates = %+v, want one (template 2), then twin", c)
	}
}

// The same face enrolled in two scopes scores like a stranger across them.
func TestScopesAreApart(t *testing.T) {
	w := newWorld(t)
	hallB := scope.Ref{Tenant: "fair", Scope: "hall-b"}
	other := scope.Ref{Tenant: "gym", Scope: "hall-a"}
	for _, ref := range []scope.Ref{hallA, hallB, other} {
		w.create(ref)
	}
	w.enroll(hallA, "anna", cropOf(1, 0))
	for _, ref := range []scope.Ref{hallB, other} {
		expect(t, w.identify(ref, cropOf(1, 0)), NoMatch, "")
		expect(t, w.verify(ref, "anna", cropOf(1, 0)), NoMatch, "")
	}
	for _, g := range []scope.Grant{{}, scope.Mint(hallA, scope.UseEnroll, "x")} {
		if _, err := w.Identify(context.Background(), g, IdentifyQuery{Probe: cropOf(1, 0)}); !errors.Is(err, scope.ErrNotGranted) {
			t.Errorf("grant for %v: %v, want ErrNotGranted", g.Ref(), err)
		}
	}
}

func TestUnknownSubjectLooksLikeAStranger(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	w.enroll(hallA, "anna", cropOf(1, 0))
	var scores []float64
	for i := range 200 {
		d := w.verify(hallA, scope.SubjectID(fmt.Sprintf("nobody-%d", i)), vectorOf(9, byte(i)))
		expect(t, d, NoMatch, "")
		if !d.HasScore {
			t.Fatal("the answer has no score, which tells that nobody is enrolled")
		}
		scores = append(scores, float64(d.Score))
	}
	mean, most := 0.0, 0.0
	for _, s := range scores {
		mean += s / float64(len(scores))
		most = max(most, math.Abs(s))
	}
	// A stranger's score deviates by 1/sqrt(128), and the mean of 200 by a fourteenth of
	// that: the bounds are above six deviations of either.
	if math.Abs(mean) > 0.045 || most > 0.55 {
		t.Errorf("decoy scores have mean %.3f and largest %.3f; strangers' have 0 and stay below 0.55", mean, most)
	}
	again := w.verify(hallA, "nobody-0", vectorOf(9, 0))
	if float64(again.Score) != scores[0] {
		t.Error("asking twice gives another score, which tells that nobody is enrolled")
	}
}

func TestTimeEndsMatching(t *testing.T) {
	w := newWorld(t)
	s := w.settings()
	s.Retention = 2 * time.Hour
	_, err := w.CreateScope(context.Background(), grant(hallA), s, request())
	must(t, err)
	w.enroll(hallA, "anna", cropOf(1, 0))
	e, err := w.Enroll(context.Background(), grant(hallA), Enrollment{Subject: "ben", Consent: w.consent(), Probes: []Probe{cropOf(2, 0)}, ExpireTime: w.now().Add(time.Hour)})
	must(t, err)
	w.pass(time.Hour - time.Second)
	expect(t, w.identify(hallA, cropOf(2, 1)), Match, "ben")
	w.pass(time.Second)
	if !e.Subject.ExpireTime.Equal(w.now()) {
		t.Fatalf("ben expires at %v, want %v", e.Subject.ExpireTime, w.now())
	}
	expect(t, w.identify(hallA, cropOf(2, 1)), NoMatch, "")
	expect(t, w.verify(hallA, "ben", cropOf(2, 1)), NoMatch, "")
	expect(t, w.identify(hallA, cropOf(1, 1)), Match, "anna")
	w.restart()
	expect(t, w.identify(hallA, cropOf(2, 1)), NoMatch, "")

	// Who expired may come back, as a new subject with templates of its own.
	w.enroll(hallA, "ben", cropOf(2, 3))
	if d := w.identify(hallA, cropOf(2, 1)); d.Outcome != Match || d.Template != 2 {
		t.Fatalf("after enrolling again: %v template %d, want a match of template 2", d.Outcome, d.Template)
	}
	w.pass(71 * time.Hour)
	for _, err := range []error{
		second(w.Identify(context.Background(), grant(hallA), IdentifyQuery{Probe: cropOf(1, 1)})),
		second(w.Enroll(context.Background(), grant(hallA), Enrollment{Subject: "new", Consent: w.consent(), Probes: []Probe{cropOf(3, 0)}})),
	} {
		if !errors.Is(err, ErrScopeEnded) {
			t.Errorf("after the scope's end: %v, want ErrScopeEnded", err)
		}
	}
	_, err = w.DeleteSubject(context.Background(), grant(hallA), "anna", request())
	must(t, err) // erasure works after the end
}

func second[T any](_ T, err error) error { return err }

func TestSuspendAndResume(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "anna", cropOf(1, 0))
	s, err := w.SuspendScope(ctx, grant(hallA), request())
	must(t, err)
	if s.State != scope.Suspended {
		t.Fatalf("state %v", s.State)
	}
	w.restart()
	if _, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "anna", Probe: cropOf(1, 1)}); !errors.Is(err, ErrScopeSuspended) {
		t.Fatalf("verify while suspended: %v", err)
	}
	_, err = w.ResumeScope(ctx, grant(hallA), request())
	must(t, err)
	expect(t, w.verify(hallA, "anna", cropOf(1, 1)), Match, "anna")
}

func TestUpdateScope(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	before := w.create(hallA)
	patch := SettingsPatch{Settings: Settings{Alternative: "the side door", EndTime: w.now().Add(time.Hour), VerifyThreshold: 0.7}, Fields: []string{"alternative", "end_time", "verify_threshold"}}
	after, err := w.UpdateScope(ctx, grant(hallA), patch, request())
	must(t, err)
	if after.Alternative != "the side door" || after.VerifyThreshold != 0.7 || after.IdentifyThreshold != 0.6 || after.Purpose != before.Purpose || after.Epoch != before.Epoch+1 {
		t.Errorf("after the update: %+v", after)
	}
	for name, bad := range map[string]SettingsPatch{
		"no mask":          {},
		"unknown field":    {Fields: []string{"state"}},
		"purpose":          {Settings: Settings{Purpose: "advertising"}, Fields: []string{"purpose"}},
		"later end":        {Settings: Settings{EndTime: w.now().Add(24 * time.Hour)}, Fields: []string{"end_time"}},
		"end in the past":  {Settings: Settings{EndTime: w.now().Add(-time.Hour)}, Fields: []string{"end_time"}},
		"threshold NaN":    {Settings: Settings{VerifyThreshold: code.Threshold(math.NaN())}, Fields: []string{"verify_threshold"}},
		"threshold low":    {Settings: Settings{IdentifyThreshold: 5e-324}, Fields: []string{"identify_threshold"}},
		"no alternative":   {Fields: []string{"alternative"}},
		"blank":            {Settings: Settings{Alternative: "   "}, Fields: []string{"alternative"}},
		"bidi override":    {Settings: Settings{Alternative: "lane \u202e3"}, Fields: []string{"alternative"}},
		"many templates":   {Settings: Settings{MaxTemplates: 11}, Fields: []string{"max_templates_per_subject"}},
		"endless retained": {Fields: []string{"retention"}},
	} {
		if _, err := w.UpdateScope(ctx, grant(hallA), bad, request()); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	w.restart()
	s, err := w.Scope(ctx, grant(hallA))
	must(t, err)
	if s.Alternative != "the side door" || s.Epoch != after.Epoch {
		t.Errorf("after the restart: %+v", s)
	}
}

func TestErase(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "anna", cropOf(1, 0), cropOf(1, 1))
	w.enroll(hallA, "ben", cropOf(2, 0))
	w.enroll(hallA, "cai", cropOf(3, 0))
	if _, err := w.DeleteTemplate(ctx, grant(hallA), "anna", 9, request()); !errors.Is(err, ErrNoTemplate) {
		t.Errorf("absent template: %v", err)
	}
	done, err := w.DeleteTemplate(ctx, grant(hallA), "anna", 1, request())
	must(t, err)
	if done.Templates != 1 {
		t.Errorf("erased %d templates, want 1", done.Templates)
	}
	if d := w.verify(hallA, "anna", cropOf(1, 0)); d.Outcome != Match || d.Template != 2 {
		t.Errorf("after deleting template 1: %v of template %d", d.Outcome, d.Template)
	}
	_, err = w.DeleteTemplate(ctx, grant(hallA), "anna", 2, request())
	must(t, err)
	_, err = w.WithdrawConsent(ctx, grant(hallA), "ben", request())
	must(t, err)
	for range 2 {
		for i, id := range []scope.SubjectID{"anna", "ben"} {
			expect(t, w.verify(hallA, id, cropOf(uint16(i+1), 0)), NoMatch, "")
			if _, err := w.Subject(ctx, grant(hallA), id); !errors.Is(err, ErrNoSubject) {
				t.Errorf("%s: %v, want ErrNoSubject", id, err)
			}
			if _, err := w.DeleteSubject(ctx, grant(hallA), id, request()); !errors.Is(err, ErrNoSubject) {
				t.Errorf("deleting %s again: %v, want ErrNoSubject", id, err)
			}
		}
		expect(t, w.identify(hallA, cropOf(3, 1)), Match, "cai")
		w.restart()
	}
	w.enroll(hallA, "ben", cropOf(2, 5)) // a new subject under the old id
	expect(t, w.verify(hallA, "ben", cropOf(2, 1)), Match, "ben")
}

func TestAddTemplates(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "anna", cropOf(1, 0))
	add := Enrollment{Subject: "anna", Consent: w.consent(), Probes: []Probe{cropOf(1, 1), cropOf(1, 2)}, AddTemplates: true}
	e, err := w.Enroll(ctx, grant(hallA), add)
	must(t, err)
	if ids := templateIDs(e.Subject); !slices.Equal(ids, []scope.TemplateID{1, 2, 3}) {
		t.Errorf("templates %v, want 1 2 3", ids)
	}
	add.Probes = []Probe{cropOf(1, 3), cropOf(1, 4), cropOf(1, 5)}
	if _, err := w.Enroll(ctx, grant(hallA), add); !errors.Is(err, ErrTooManyTemplates) {
		t.Errorf("a sixth template: %v", err)
	}
	add.AddTemplates = false
	if _, err := w.Enroll(ctx, grant(hallA), add); !errors.Is(err, ErrSubjectExists) {
		t.Errorf("enrolling twice: %v", err)
	}
	add.AddTemplates, add.Subject = true, "nobody"
	if _, err := w.Enroll(ctx, grant(hallA), add); !errors.Is(err, ErrNoSubject) {
		t.Errorf("adding to nobody: %v", err)
	}
}

func templateIDs(s Subject) (ids []scope.TemplateID) {
	for _, t := range s.Templates {
		ids = append(ids, t.ID)
	}
	return ids
}

func TestListSubjectsAndScopes(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	for _, id := range []scope.ScopeID{"c", "a", "b"} {
		w.create(scope.Ref{Tenant: "fair", Scope: id})
	}
	w.create(scope.Ref{Tenant: "fair-2", Scope: "z"})
	ref := scope.Ref{Tenant: "fair", Scope: "a"}
	for _, i := range []int{3, 1, 2} {
		w.enroll(ref, subjectID(i), cropOf(uint16(i), 0))
	}
	var got []string
	after := scope.SubjectID("")
	for {
		page, err := w.Subjects(ctx, grant(ref), after, 2)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, s := range page {
			got = append(got, string(s.ID))
			after = s.ID
		}
	}
	if strings.Join(got, " ") != "visitor-1 visitor-2 visitor-3" {
		t.Errorf("subjects: %v", got)
	}
	scopes, err := w.Scopes(ctx, scope.MintTenant("fair", "op"), "a", 10, false)
	must(t, err)
	if len(scopes) != 2 || scopes[0].Ref.Scope != "b" || scopes[1].Ref.Scope != "c" {
		t.Errorf("scopes after a: %v", scopes)
	}
	if _, err := w.Scopes(ctx, scope.TenantGrant{}, "", 10, false); !errors.Is(err, scope.ErrNotGranted) {
		t.Errorf("the zero grant lists scopes: %v", err)
	}
}

func TestRequestIDs(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	first := idempotency.Request{ID: "r-1", Fingerprint: [32]byte{1}}
	altered := idempotency.Request{ID: "r-1", Fingerprint: [32]byte{2}}
	for range 2 {
		_, err := w.CreateScope(ctx, grant(hallA), w.settings(), first)
		must(t, err)
	}
	if _, err := w.CreateScope(ctx, grant(hallA), w.settings(), altered); !errors.Is(err, idempotency.ErrReused) {
		t.Errorf("altered CreateScope: %v", err)
	}
	e := Enrollment{Consent: w.consent(), Probes: []Probe{cropOf(1, 0)}, Request: first}
	one, err := w.Enroll(ctx, grant(hallA), e)
	must(t, err)
	w.restart()
	two, err := w.Enroll(ctx, grant(hallA), e)
	must(t, err)
	if !two.Repeated || two.Subject.ID != one.Subject.ID {
		t.Errorf("repeating gave %+v, want subject %s again", two, one.Subject.ID)
	}
	e.Request = altered
	if _, err := w.Enroll(ctx, grant(hallA), e); !errors.Is(err, idempotency.ErrReused) {
		t.Errorf("altered Enroll: %v", err)
	}
	del := idempotency.Request{ID: "r-2"}
	for range 2 {
		done, err := w.DeleteSubject(ctx, grant(hallA), one.Subject.ID, del)
		must(t, err)
		if done.Templates != 1 {
			t.Errorf("erased %d templates, want 1", done.Templates)
		}
	}
	w.pass(idempotency.Retention + time.Second)
	n, err := w.dropOldRequests(ctx)
	must(t, err)
	if n != 3 {
		t.Errorf("dropped %d request ids, want 3", n)
	}
	e.Consent = w.consent()
	_, err = w.Enroll(ctx, grant(hallA), e) // the id is free again
	must(t, err)
}

func TestBadProbes(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	model := fakeModelID()
	vector := func(x ...float32) []byte {
		v := make([]float32, testDim)
		copy(v, x)
		return floats(v)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, tc := range map[string]struct {
		probe Probe
		want  error
	}{
		"empty":         {Probe{}, ErrNoProbe},
		"wrong model":   {Probe{Embedding: EmbeddingProbe{ModelID: "other@1", Vector: vector(1)}}, ErrModelMismatch},
		"short vector":  {Probe{Embedding: EmbeddingProbe{ModelID: model, Vector: vector(1)[:511]}}, ErrVectorLength},
		"long vector":   {Probe{Embedding: EmbeddingProbe{ModelID: model, Vector: append(vector(1), 0, 0, 0, 0)}}, ErrVectorLength},
		"NaN":           {Probe{Embedding: EmbeddingProbe{ModelID: model, Vector: vector(nan)}}, code.ErrNotFinite},
		"Inf":           {Probe{Embedding: EmbeddingProbe{ModelID: model, Vector: vector(1, inf)}}, code.ErrNotFinite},
		"zero":          {Probe{Embedding: EmbeddingProbe{ModelID: model, Vector: vector()}}, code.ErrZero},
		"denormal":      {Probe{Embedding: EmbeddingProbe{ModelID: model, Vector: vector(1e-42)}}, code.ErrZero},
		"crop size":     {Probe{CropRGB: make([]byte, 100)}, align.ErrCropSize},
		"crop no image": {Probe{CropEncoded: []byte("hello, gate")}, decode.ErrFormat},
		"crop too big":  {Probe{CropEncoded: imageOf(t, 1, 0, 1).Image}, align.ErrCropSize},
		"no image":      {Probe{Image: []byte("%PDF-1.7 hello")}, decode.ErrFormat},
		"truncated":     {Probe{Image: imageOf(t, 1, 0, 1).Image[:900]}, decode.ErrCorrupt},
	} {
		_, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "anna", Probe: tc.probe})
		if !errors.Is(err, tc.want) {
			t.Errorf("verify %s: %v, want %v", name, err, tc.want)
		}
		_, err = w.Enroll(ctx, grant(hallA), Enrollment{Subject: "anna", Consent: w.consent(), Probes: []Probe{cropOf(1, 0), tc.probe}})
		var at *ProbeError
		if !errors.Is(err, tc.want) || !errors.As(err, &at) || at.Index != 1 {
			t.Errorf("enroll %s: %v, want probe 1 and %v", name, err, tc.want)
		}
	}
	if _, err := w.Subject(ctx, grant(hallA), "anna"); !errors.Is(err, ErrNoSubject) {
		t.Errorf("a refused enrolment left something behind: %v", err)
	}
}

func floats(v []float32) []byte {
	p := make([]byte, 0, 4*len(v))
	for _, x := range v {
		u := math.Float32bits(x)
		p = append(p, byte(u), byte(u>>8), byte(u>>16), byte(u>>24))
	}
	return p
}

func TestHowManyFaces(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	for n, want := range map[int]error{0: ErrNoFace, 2: ErrManyFaces} {
		_, err := w.Enroll(ctx, grant(hallA), Enrollment{Subject: "anna", Consent: w.consent(), Probes: []Probe{imageOf(t, 1, 0, n)}})
		if !errors.Is(err, want) {
			t.Errorf("enrolling a picture with %d faces: %v, want %v", n, err, want)
		}
		d := w.identify(hallA, imageOf(t, 1, 0, n))
		if d.Outcome != UseAlternative || d.Alternative != "the staffed lane" || len(d.Findings) == 0 || d.HasScore {
			t.Errorf("identifying a picture with %d faces: %+v", n, d)
		}
	}
	w.enroll(hallA, "anna", imageOf(t, 1, 0, 1))
	w.enroll(hallA, "cai", cropOf(3, 0))
	r, err := w.Identify(ctx, grant(hallA), IdentifyQuery{Probe: imageOf(t, 1, 1, 3), EachFace: true})
	must(t, err)
	var got []string
	for _, f := range r {
		got = append(got, f.Decision.Outcome.String()+" "+string(f.Decision.Subject))
	}
	if strings.Join(got, ", ") != "MATCH anna, NO_MATCH , MATCH cai" {
		t.Errorf("each face: %v", got)
	}
}

func TestDarkPictures(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	dark := Probe{CropRGB: make([]byte, align.Size*align.Size*3)}
	d := w.identify(hallA, dark)
	if d.Outcome != UseAlternative || !slices.Contains(d.Findings, quality.TooDark) {
		t.Errorf("a black crop: %v %v", d.Outcome, d.Findings)
	}
	_, err := w.Enroll(context.Background(), grant(hallA), Enrollment{Subject: "anna", Consent: w.consent(), Probes: []Probe{dark}})
	var q *QualityError
	if !errors.As(err, &q) || !slices.Contains(q.Findings, quality.TooDark) {
		t.Errorf("enrolling a black crop: %v", err)
	}
}

func TestConsentIsNeeded(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	for name, change := range map[string]func(*Consent){
		"reference": func(c *Consent) { c.Reference = "" },
		"time":      func(c *Consent) { c.GiveTime = time.Time{} },
		"future":    func(c *Consent) { c.GiveTime = w.now().Add(time.Hour) },
		"notice":    func(c *Consent) { c.NoticeVersion = "" },
		"guardian":  func(c *Consent) { c.Minor = true },
		"adult":     func(c *Consent) { c.GuardianReference = "form-18" },
		"control":   func(c *Consent) { c.Reference = "a\x00b" },
		"encoding":  func(c *Consent) { c.Reference = "\xff" },
		"length":    func(c *Consent) { c.Reference = strings.Repeat("x", MaxReference+1) },
	} {
		c := w.consent()
		change(&c)
		_, err := w.Enroll(context.Background(), grant(hallA), Enrollment{Subject: "anna", Consent: c, Probes: []Probe{cropOf(1, 0)}})
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}
