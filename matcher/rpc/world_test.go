package rpc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/admission"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/matcher/signing"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/pipeline"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

const testDim = 128

// testCores are enough for every call of a test to begin at once.
const testCores = 64

// fakeModels sees what the pictures of this file say: the first bytes of a crop
// are the person and the shot, and an image of 200*n pixels shows n faces side
// by side. Tests count its runs and can hold them up.
type fakeModels struct {
	dim   int // 0: testDim
	runs  atomic.Int64
	hold  chan struct{} // nil: no run waits
	panic atomic.Bool
}

func (f *fakeModels) EmbedderManifest() models.Manifest {
	return models.Manifest{
		Name: "fake", Kind: models.KindEmbedder, SHA256: strings.Repeat("0123456789abcdef", 4), License: "none",
		Evaluation: true, Output: models.Output{Dimension: cmp.Or(f.dim, testDim)}, Threshold: 0.6,
	}
}

func fakeModelID() string {
	m := (&fakeModels{}).EmbedderManifest()
	return m.ID()
}

func (*fakeModels) Measure(data []byte) (decode.Cost, error) {
	return decode.Measure(data, decode.DefaultLimits())
}

func (*fakeModels) Decode(_ context.Context, data []byte) (*decode.Image, error) {
	return decode.Decode(data, decode.DefaultLimits())
}

func (f *fakeModels) Observe(ctx context.Context, data []byte) (*pipeline.Scene, error) {
	img, err := f.Decode(ctx, data)
	if err != nil {
		return nil, err
	}
	scene := &pipeline.Scene{Image: img}
	for i := range img.Width / 200 {
		x := float32(200 * i)
		face := detect.Face{Score: 0.95, Box: detect.Box{X: x + 30, Y: 20, W: 140 - float32(i), H: 160}}
		for k, p := range align.Reference() {
			face.Landmarks[k] = align.Point{X: x + 44 + p.X, Y: 44 + p.Y}
		}
		scene.Faces = append(scene.Faces, face)
	}
	return scene, nil
}

func (*fakeModels) Crop(_ context.Context, scene *pipeline.Scene, i int) (*align.Crop, error) {
	return align.CropFromRGB(pixels(uint16(scene.Image.Pix[0])+uint16(i), scene.Image.Pix[1]))
}

func (f *fakeModels) Embed(ctx context.Context, crop *align.Crop) ([]float32, error) {
	f.runs.Add(1)
	if f.panic.Load() {
		panic("a secret that callers must not see")
	}
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return embeddingIn(cmp.Or(f.dim, testDim), binary.BigEndian.Uint16(crop.Pix), crop.Pix[2]), ctx.Err()
}

// embeddingOf is a direction of the person's own plus noise of the shot.
func embeddingOf(person uint16, shot byte) []float32 { return embeddingIn(testDim, person, shot) }

func embeddingIn(dim int, person uint16, shot byte) []float32 {
	own := rand.New(rand.NewPCG(uint64(person), 1))
	noise := rand.New(rand.NewPCG(uint64(person), 1000+uint64(shot)))
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(own.NormFloat64() + 0.4*noise.NormFloat64())
	}
	return v
}

// pixels is a crop that is bright, sharp and of rich contrast.
func pixels(person uint16, shot byte) []byte {
	src := rand.New(rand.NewPCG(7, 7))
	pix := make([]byte, align.Size*align.Size*3)
	for i := range pix {
		pix[i] = byte(60 + src.IntN(140))
	}
	binary.BigEndian.PutUint16(pix, person)
	pix[2] = shot
	return pix
}

func cropOf(person uint16, shot byte) *pb.Probe {
	return &pb.Probe{Kind: &pb.Probe_Crop{Crop: &pb.FaceCrop{Pixels: &pb.FaceCrop_Rgb{Rgb: pixels(person, shot)}}}}
}

func vectorProbe(model string, values ...float32) *pb.Probe {
	var b []byte
	for _, x := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return &pb.Probe{Kind: &pb.Probe_Embedding{Embedding: &pb.Embedding{ModelId: model, Vector: b}}}
}

func vectorOf(person uint16, shot byte) *pb.Probe {
	return vectorProbe(fakeModelID(), embeddingOf(person, shot)...)
}

func imageProbe(data []byte) *pb.Probe {
	return &pb.Probe{Kind: &pb.Probe_Image{Image: &pb.CameraImage{Data: data}}}
}

// picture is a PNG that shows the people first, first+1, ...
func picture(t testing.TB, first uint8, shot byte, faces int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, max(200*faces, 150), 200))
	src := rand.New(rand.NewPCG(3, 3))
	for i := range img.Pix {
		img.Pix[i] = byte(60 + src.IntN(140))
	}
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = 255
	}
	img.SetRGBA(0, 0, color.RGBA{R: first, G: shot, A: 255})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// world is the whole service behind a real gRPC server in memory, with two
// tenants, fair (hall-a, hall-b) and gym (north), and a key for each role.
type world struct {
	t         testing.TB
	models    *fakeModels
	matcher   *matcher.Matcher
	authority *auth.Authority
	index     *index.Index
	audit     *audit.Log
	auditDir  string
	room      atomic.Uint64
	signer    *signing.Key
	server    *Server
	listener  *bufconn.Listener
	log       lockedBuffer
	admin     auth.Caller
	keys      map[string]string // "gate", "enroller", ... of fair's hall-a; "gym gate", ...
	ids       map[string]auth.CredentialID
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld opens everything and makes the scopes and keys.
func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	return newWorldOf(t, &fakeModels{}, change...)
}

func newWorldOf(t testing.TB, models *fakeModels, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, models: models, index: index.New(), keys: map[string]string{}, ids: map[string]auth.CredentialID{}}
	dir := t.TempDir()
	ctx := context.Background()
	ring, err := keyring.Open(filepath.Join(dir, "keyring"), keyring.NewRoot(), keyring.Options{Create: true})
	w.ok(err)
	db, err := store.Open(ctx, store.Options{Dir: filepath.Join(dir, "data"), Keyring: ring, MemTableBytes: 8 << 20})
	w.ok(err)
	w.openAudit(filepath.Join(dir, "audit"))
	w.ok(w.audit.Attach(ctx, db))
	log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.matcher, err = matcher.New(ctx, matcher.Options{Store: db, Keyring: ring, Index: w.index, Perception: w.models, Logger: slog.New(slog.DiscardHandler),
		Receipts:  filepath.Join(dir, "receipts"),
		Journal:   filepath.Join(dir, "journal"),
		Admission: admission.New(admission.Options{Cores: testCores}), Audit: w.audit})
	w.ok(err)
	w.authority, err = auth.Open(ctx, auth.Options{Store: db, ScopeExists: w.matcher.Exists})
	w.ok(err)
	opt := Options{
		Matcher: w.matcher, Authority: w.authority, Audit: w.audit, Logger: log,
		Info: Info{Version: "test", Images: decode.DefaultLimits(), Start: time.Now(), Models: []pipeline.ModelInfo{{ID: fakeModelID(), Manifest: w.models.EmbedderManifest()}}},
	}
	for _, f := range change {
		f(&opt)
	}
	w.server, err = New(opt)
	w.ok(err)
	w.listener = bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(w.listener) }()
	t.Cleanup(func() {
		drain, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		w.server.Drain(drain)
		w.ok(<-served)
		w.index.Each(func(g *index.Gallery) bool { w.ok(g.Check()); return true })
		w.ok(w.matcher.Close())
		w.ok(w.audit.Close())
		_, err := audit.Verify(w.auditDir, signing.NewPublicKeys(w.signer.Public()))
		w.ok(err)
		w.ok(db.Check())
		w.ok(db.Close())
		w.ok(ring.Close())
	})
	w.settle(ctx)
	return w
}

// settle makes tenants, keys and scopes.
func (w *world) settle(ctx context.Context) {
	w.t.Helper()
	cred, key, err := w.authority.BootstrapAdmin(ctx, "root", "")
	w.ok(err)
	w.keys["admin"], w.ids["admin"] = key, cred.ID
	w.admin, err = w.authority.Authenticate(key)
	w.ok(err)
	for t, scopes := range map[scope.TenantID][]string{"fair": {"hall-a", "hall-b"}, "gym": {"north"}} {
		_, err := w.authority.CreateTenant(ctx, w.admin, t, "", idempotency.Request{})
		w.ok(err)
		prefix := ""
		if t != "fair" {
			prefix = string(t) + " "
		}
		w.credential(prefix+"operator", auth.TenantOperator, t)
		w.credential(prefix+"auditor", auth.Auditor, t)
		for _, s := range scopes {
			_, err := w.scopes(prefix+"operator").CreateScope(ctx, &pb.CreateScopeRequest{ScopeId: s, Scope: w.settings()})
			w.ok(err)
		}
		w.credential(prefix+"enroller", auth.Enroller, t, scopes[0])
		w.credential(prefix+"gate", auth.Gate, t, scopes[0])
	}
	w.credential("both gate", auth.Gate, "fair", "hall-a", "hall-b")
	w.credential("both enroller", auth.Enroller, "fair", "hall-a", "hall-b")
}

func (w *world) credential(name string, role auth.Role, tenant scope.TenantID, scopes ...string) {
	w.t.Helper()
	spec := auth.Spec{Role: role, Tenant: tenant}
	for _, s := range scopes {
		spec.Scopes = append(spec.Scopes, scope.Ref{Tenant: tenant, Scope: scope.ScopeID(s)})
	}
	cred, key, err := w.authority.CreateCredential(context.Background(), w.admin, spec, idempotency.Request{})
	w.ok(err)
	w.keys[name], w.ids[name] = key, cred.ID
}

func (w *world) settings() *pb.Scope {
	return &pb.Scope{
		Purpose: "entry to the fair", Site: "hall A", Alternative: "the staffed lane", LegalBasis: "separate consent",
		EndTime: timestamppb.New(time.Now().Add(72 * time.Hour)),
	}
}

func (w *world) consent() *pb.Consent {
	return &pb.Consent{Reference: "form-17", GiveTime: timestamppb.New(time.Now().Add(-time.Minute)), NoticeVersion: "2"}
}

func (w *world) enrollment(id string, probes ...*pb.Probe) *pb.EnrollRequest {
	return &pb.EnrollRequest{SubjectId: id, Consent: w.consent(), Probes: probes}
}

// as is a connection that sends the named key with every call; "" sends none.
func (w *world) as(name string) *grpc.ClientConn {
	w.t.Helper()
	options := []grpc.DialOption{}
	if name != "" {
		key, ok := w.keys[name]
		if !ok {
			w.t.Fatalf("no key named %q", name)
		}
		options = append(options, withHeader("authorization", "Bearer "+key)...)
	}
	return w.dial(options...)
}

func (w *world) dial(options ...grpc.DialOption) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient("passthrough:///menshen", append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.listener.DialContext(ctx) }),
	}, options...)...)
	w.ok(err)
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

// withHeader adds a header to every call.
func withHeader(pairs ...string) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(metadata.AppendToOutgoingContext(ctx, pairs...), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(metadata.AppendToOutgoingContext(ctx, pairs...), desc, cc, method, opts...)
		}),
	}
}

func (w *world) match(name string) pb.MatchServiceClient { return pb.NewMatchServiceClient(w.as(name)) }
func (w *world) enroll(name string) pb.EnrollmentServiceClient {
	return pb.NewEnrollmentServiceClient(w.as(name))
}
func (w *world) scopes(name string) pb.ScopeServiceClient {
	return pb.NewScopeServiceClient(w.as(name))
}
func (w *world) administer(name string) pb.AdminServiceClient {
	return pb.NewAdminServiceClient(w.as(name))
}

// openAudit opens the audit log; it keeps w.room bytes of the disk free.
func (w *world) openAudit(dir string) {
	w.t.Helper()
	p, err := audit.NewPseudonyms(audit.NewPseudonymState(time.Now()), func([]byte) error { return nil })
	w.ok(err)
	w.auditDir, w.signer = dir, signing.NewKey()
	w.audit, err = audit.Open(audit.Options{Dir: dir, Key: w.signer, Pseudonyms: p, MinFree: w.room.Load, Logger: slog.New(slog.DiscardHandler)})
	w.ok(err)
}

func (w *world) events(name string) pb.AuditServiceClient {
	return pb.NewAuditServiceClient(w.as(name))
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// patience bounds what hangs; nothing that goes on takes as long, on any machine.
const patience = 2 * time.Minute

// ctx is bounded, so that a call that hangs fails its test.
func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// reason is the code and the ErrorInfo reason of an error.
func reason(err error) (codes.Code, string) {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == domain {
			return status.Code(err), info.GetReason()
		}
	}
	return status.Code(err), ""
}

// fieldsOf are the fields that a BadRequest names.
func fieldsOf(err error) (out []string) {
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				out = append(out, v.GetField())
			}
		}
	}
	return out
}

// want checks code and reason of an error.
func (w *world) want(what string, err error, code codes.Code, why string) {
	w.t.Helper()
	if c, r := reason(err); c != code || r != why {
		w.t.Errorf("%s: %v %q (%v); want %v %q", what, c, r, err, code, why)
	}
}

// drainStream reads a stream to its end.
func drainStream[T any](recv func() (T, error)) (all []T, err error) {
	for {
		v, err := recv()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
}
