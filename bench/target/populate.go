package target

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/bench/faces"
	"github.com/menshen-io/menshen/bench/search"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// ErrPopulate: the server did not take what a benchmark needs; the text says
// what.
var ErrPopulate = errors.New("cannot set the benchmark up")

// PopulateOptions say what a benchmark finds on the server.
type PopulateOptions struct {
	Tenants int    // with one scope each
	Gallery int    // templates of each scope, from synthetic embeddings
	Faces   int    // drawn people of each scope, enrolled from a crop
	Seed    uint64 // of the embeddings and the faces
	// Recorded demands that every decision is in the audit log before it is answered.
	Recorded bool
	// Progress, where not nil, is called with the number of enrolments ahead;
	// what it returns is called after each, from any goroutine.
	Progress func(phase string, steps int) (step func())
}

// Tenant is a tenant with one scope and a key for its gates.
type Tenant struct {
	Name    string // its resource name; empty for one that was there before
	Scope   string // likewise
	GateKey string
	ModelID string
	Dim     int
	Gallery int
	Faces   int // how many drawn people were really enrolled
	Seed    uint64

	adminKey, operatorKey, enrollerKey string

	pool []*pb.Probe // of EnrolFor
	more int         // subjects that EnrolFor has named
}

// Info is what a benchmark needs of a server's answer about itself.
type Info struct {
	Version, ModelID, DetectorID, Kernel, Runtime string
	Dim                                           int
}

// Describe asks the server which models it has.
func Describe(ctx context.Context, conn *grpc.ClientConn, key string) (info Info, err error) {
	resp, err := pb.NewAdminServiceClient(conn).GetServerInfo(WithKey(ctx, key), &pb.GetServerInfoRequest{})
	if err != nil {
		return info, fmt.Errorf("%w: the server does not tell about itself: %w", ErrPopulate, err)
	}
	info.Version, info.Kernel, info.Runtime = resp.Version, resp.Kernel, resp.RuntimeVersion
	for _, m := range resp.Models {
		if m.Dimension > 0 {
			info.ModelID, info.Dim = m.Id, int(m.Dimension)
		} else {
			info.DetectorID = m.Id
		}
	}
	if info.Dim == 0 {
		return info, fmt.Errorf("%w: the server has no embedder", ErrPopulate)
	}
	return info, nil
}

// Populate makes tenants with a scope, keys and a gallery each, as a platform
// admin. Names are new in every run. Error: ErrPopulate.
func Populate(ctx context.Context, conn *grpc.ClientConn, adminKey string, opt PopulateOptions) ([]*Tenant, error) {
	info, err := Describe(ctx, conn, adminKey)
	if err != nil {
		return nil, err
	}
	step := func() {}
	if opt.Progress != nil {
		step = opt.Progress("enrolling", opt.Tenants*(opt.Gallery+opt.Faces))
	}
	var tenants []*Tenant
	for i := range opt.Tenants {
		id := fmt.Sprintf("bench-%d-%d", time.Now().UnixMilli(), i)
		t := &Tenant{Name: "tenants/" + id, ModelID: info.ModelID, Dim: info.Dim, Gallery: opt.Gallery, Seed: opt.Seed + uint64(i)<<32, adminKey: adminKey}
		tenants = append(tenants, t)
		err := t.open(ctx, conn, adminKey, id, opt.Recorded)
		if err == nil {
			err = t.enrol(ctx, conn, opt.Faces, step)
		}
		if err != nil {
			return tenants, fmt.Errorf("%w: tenant %s: %w", ErrPopulate, id, err)
		}
	}
	return tenants, nil
}

// open makes the tenant, its scope and keys.
func (t *Tenant) open(ctx context.Context, conn *grpc.ClientConn, adminKey, id string, recorded bool) (err error) {
	admin, parent := pb.NewAdminServiceClient(conn), "tenants/"+id
	if _, err := admin.CreateTenant(WithKey(ctx, adminKey), &pb.CreateTenantRequest{TenantId: id, Tenant: &pb.Tenant{DisplayName: "benchmark"}}); err != nil {
		return err
	}
	newKey := func(by string, role pb.Role, scopes ...string) (key string, err error) {
		resp, err := admin.CreateCredential(WithKey(ctx, by), &pb.CreateCredentialRequest{
			Parent: parent, Credential: &pb.Credential{Role: role, Scopes: scopes, DisplayName: "benchmark"},
		})
		return resp.GetApiKey(), err
	}
	if t.operatorKey, err = newKey(adminKey, pb.Role_ROLE_TENANT_OPERATOR); err != nil {
		return err
	}
	decisions := pb.DecisionAudit_DECISION_AUDIT_OFF
	if recorded {
		decisions = pb.DecisionAudit_DECISION_AUDIT_REQUIRED
	}
	t.Scope = parent + "/scopes/gate" // from now on to be removed, even where the answer does not arrive
	_, err = pb.NewScopeServiceClient(conn).CreateScope(WithKey(ctx, t.operatorKey), &pb.CreateScopeRequest{
		Parent: parent, ScopeId: "gate", Scope: &pb.Scope{
			Purpose: "a benchmark", Site: "nowhere", Alternative: "none is needed", LegalBasis: "synthetic data", NoticeVersion: "1",
			EndTime: timestamppb.New(time.Now().Add(24 * time.Hour)), VerifyThreshold: threshold, IdentifyThreshold: threshold,
			DecisionAudit: decisions,
		}})
	if err != nil {
		return err
	}
	if t.GateKey, err = newKey(t.operatorKey, pb.Role_ROLE_GATE, t.Scope); err != nil {
		return err
	}
	t.enrollerKey, err = newKey(t.operatorKey, pb.Role_ROLE_ENROLLER, t.Scope)
	return err
}

// threshold gives synthetic strangers an FMR of about 1e-5 (bench/search).
const threshold = 0.45

// Streams that enrol at the same time, and what each has in flight: together
// enough for the store to commit in groups.
const (
	enrolStreams = 8
	enrolAhead   = 64
)

// enrol fills the gallery. Drawn people whom the server's quality check refuses
// are left out; any other refusal is an error.
func (t *Tenant) enrol(ctx context.Context, conn *grpc.ClientConn, people int, step func()) error {
	ctx, fail := context.WithCancelCause(WithKey(ctx, t.enrollerKey))
	defer fail(nil)
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		next  int
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= t.Gallery+people
	}
	enrolled := make([]bool, people)
	for range enrolStreams {
		group.Go(func() {
			if err := t.enrolStream(ctx, conn, take, t.prober(), enrolled, step); err != nil {
				fail(err)
			}
		})
	}
	group.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for t.Faces < people && enrolled[t.Faces] {
		t.Faces++
	}
	return nil
}

// prober gives the probe of each enrolment, for one goroutine.
func (t *Tenant) prober() func(n int) *pb.Probe {
	generator := search.NewSource(search.Spectrum, t.Dim, t.Seed).Generator()
	values := make([]float32, t.Dim)
	return func(n int) *pb.Probe {
		if n >= t.Gallery {
			return &pb.Probe{Kind: &pb.Probe_Crop{Crop: &pb.FaceCrop{Pixels: &pb.FaceCrop_Rgb{Rgb: faces.New(t.Seed).Crop(n-t.Gallery, 0).Pix}}}}
		}
		generator.Template(values, n)
		return t.embedding(values)
	}
}

// enrolStream enrols those that take gives, over one stream.
func (t *Tenant) enrolStream(ctx context.Context, conn *grpc.ClientConn, take func() (int, bool), probe func(n int) *pb.Probe, enrolled []bool, step func()) error {
	stream, err := pb.NewEnrollmentServiceClient(conn).BulkEnroll(ctx)
	if err != nil {
		return err
	}
	ahead := make(chan struct{}, enrolAhead)
	received := make(chan error, 1)
	go func() {
		for {
			resp, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				received <- nil
				return
			}
			n := int(resp.GetSequenceId()) - 1
			switch fault := resp.GetError(); {
			case err != nil:
			case fault != nil && (n < t.Gallery || n-t.Gallery >= len(enrolled)):
				err = fmt.Errorf("enrolment %d is refused: %s: %s", n, fault.Reason, fault.Message)
			case n >= t.Gallery && n-t.Gallery < len(enrolled):
				enrolled[n-t.Gallery] = fault == nil
			}
			if err != nil {
				received <- err
				return
			}
			<-ahead
			step()
		}
	}()
	for {
		n, more := take()
		if !more {
			break
		}
		select {
		case ahead <- struct{}{}:
		case err := <-received:
			return err
		}
		if err := stream.Send(&pb.BulkEnrollRequest{SequenceId: uint64(n) + 1, Enroll: &pb.EnrollRequest{
			Parent: t.Scope, SubjectId: t.subjectID(n), Probes: []*pb.Probe{probe(n)},
			Consent: &pb.Consent{Reference: "synthetic", NoticeVersion: "1", GiveTime: timestamppb.Now()},
		}}); err != nil {
			return <-received // what ended the stream
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return <-received
}

// EnrolFor enrols further subjects, over streams on the connections in turn, until
// d has passed, and returns how many a second. Their embeddings repeat, which
// no server notices, so that next to nothing is spent on making them. One call at
// a time. Error: ErrPopulate.
func (t *Tenant) EnrolFor(ctx context.Context, conns []*grpc.ClientConn, d time.Duration) (perSecond float64, err error) {
	if t.pool == nil {
		probe := t.prober()
		for n := range min(t.Gallery, 1024) {
			t.pool = append(t.pool, probe(n))
		}
	}
	ctx, fail := context.WithCancelCause(WithKey(ctx, t.enrollerKey))
	defer fail(nil)
	var group sync.WaitGroup
	var next, done atomic.Int64
	began := time.Now()
	take := func() (int, bool) {
		return t.Gallery + t.Faces + t.more + int(next.Add(1)), time.Since(began) < d
	}
	for i := range enrolStreams {
		group.Go(func() {
			probe := func(n int) *pb.Probe { return t.pool[n%len(t.pool)] }
			if err := t.enrolStream(ctx, conns[i%len(conns)], take, probe, nil, func() { done.Add(1) }); err != nil {
				fail(err)
			}
		})
	}
	group.Wait()
	if err := context.Cause(ctx); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrPopulate, err)
	}
	t.more += int(next.Load())
	return float64(done.Load()) / time.Since(began).Seconds(), nil
}

// subjectID is that of the one who template n is of.
func (t *Tenant) subjectID(n int) string { return fmt.Sprintf("v-%d", n) }

func (t *Tenant) embedding(values []float32) *pb.Probe {
	vector := make([]byte, 0, 4*len(values))
	for _, x := range values {
		vector = binary.LittleEndian.AppendUint32(vector, math.Float32bits(x))
	}
	return &pb.Probe{Kind: &pb.Probe_Embedding{Embedding: &pb.Embedding{ModelId: t.ModelID, Vector: vector}}}
}

// Revoke revokes the scope as its operator, which destroys what was enrolled.
func (t *Tenant) Revoke(ctx context.Context, conn *grpc.ClientConn) (*pb.RevokeScopeResponse, error) {
	return pb.NewScopeServiceClient(conn).RevokeScope(WithKey(ctx, t.operatorKey), &pb.RevokeScopeRequest{Name: t.Scope})
}

// Receipt reads a receipt of the tenant as its operator.
func (t *Tenant) Receipt(ctx context.Context, conn *grpc.ClientConn, name string) (*pb.Receipt, error) {
	resp, err := pb.NewAuditServiceClient(conn).GetReceipt(WithKey(ctx, t.operatorKey), &pb.GetReceiptRequest{Name: name})
	return resp.GetReceipt(), err
}

// Remove revokes the scope and deletes the tenant, as far as they were made.
func (t *Tenant) Remove(ctx context.Context, conn *grpc.ClientConn) error {
	if t.Name == "" {
		return nil
	}
	if t.Scope != "" {
		if _, err := t.Revoke(ctx, conn); err != nil && status.Code(err) != codes.NotFound {
			return err
		}
	}
	_, err := pb.NewAdminServiceClient(conn).DeleteTenant(WithKey(ctx, t.adminKey), &pb.DeleteTenantRequest{Name: t.Name})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return err
}
