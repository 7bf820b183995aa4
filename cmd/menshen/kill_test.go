package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/cmd/menshen/internal/client"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// TestKillDuringBulkEnrolment kills a real server with SIGKILL in the middle of
// a bulk enrolment, again and again on one data directory: every enrolment that
// was acknowledged verifies after the restart, and one that was not is there
// with all its templates or not at all. MENSHEN_KILL_ROUNDS sets the number of
// kills.
func TestKillDuringBulkEnrolment(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	if text := os.Getenv("MENSHEN_KILL_ROUNDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("MENSHEN_KILL_ROUNDS=%q is not a number of rounds", text)
		}
		rounds = n
	}
	v := newVictim(t, runtimeLibrary(t))
	t.Cleanup(v.disconnect)
	v.start()
	v.setUp()
	acknowledged, lost, halves := 0, 0, 0
	for round := range rounds {
		// Kills fall before the first acknowledgement, between two, and into
		// the syncing of a large group. On a slow disk most would fall before: in every
		// second round the time begins with the first.
		wait := time.Duration(5+v.dice.IntN(120)) * time.Millisecond
		sent, acks := v.enrolUntilKilled(round, round%2 == 1, wait)
		v.start()
		a, unacked := v.check(round, sent, acks)
		acknowledged += len(acks)
		lost += len(acks) - a
		halves += unacked
	}
	// What early rounds acknowledged survived all later kills.
	for _, subject := range slices.Sorted(maps.Keys(v.faces)) {
		if outcome := v.verify(subject, v.faces[subject][0]); outcome != menshenv1.Outcome_OUTCOME_MATCH {
			t.Errorf("%s: %s at the end", subject, outcome)
		}
	}
	v.stop()
	t.Logf("%d kills: %d enrolments acknowledged, %d of them lost; %d not acknowledged but whole", rounds, acknowledged, lost, halves)
	if acknowledged == 0 {
		t.Error("no kill fell after an acknowledgement: the test showed nothing")
	}
}

// probesPerSubject is how many templates each enrolment has, so that a half one
// could be told from a whole one.
const probesPerSubject = 3

// victim is a server that gets killed, with the connections to it.
type victim struct {
	t       *testing.T
	library string
	extra   []string                         // arguments
	secure  credentials.TransportCredentials // nil: plain text
	dir     string
	dice    *rand.Rand
	model   *menshenv1.Model
	keys    map[menshenv1.Role]string
	faces   map[string][]*menshenv1.Probe // of the subjects that are known to be enrolled

	cmd    *exec.Cmd
	stderr *strings.Builder
	conns  map[menshenv1.Role]*grpc.ClientConn
	where  string // the server's address
	scope  string
	once   bool // its templates are for a single use
}

func newVictim(t *testing.T, library string) *victim {
	return &victim{
		t: t, library: library, dir: t.TempDir(), dice: rand.New(rand.NewPCG(20261121, 1)), scope: "tenants/t/scopes/s",
		keys: map[menshenv1.Role]string{}, faces: map[string][]*menshenv1.Probe{}, conns: map[menshenv1.Role]*grpc.ClientConn{},
	}
}

// start starts the server on its data directory and waits until it is ready.
func (v *victim) start() {
	v.t.Helper()
	address := filepath.Join(v.dir, "address")
	if err := os.RemoveAll(address); err != nil {
		v.t.Fatal(err)
	}
	v.cmd = child(v.t, v.library, append([]string{"serve", "--dev", "--data-dir", filepath.Join(v.dir, "data"),
		"--listen", "127.0.0.1:0", "--detector", "none", "--log-level", "warn", "--address-file", address}, v.extra...)...)
	v.stderr = v.cmd.Stderr.(*strings.Builder)
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	started := time.Now()
	for {
		data, err := os.ReadFile(address)
		if err == nil && strings.HasSuffix(string(data), "\n") {
			v.where = strings.TrimSpace(string(data))
			v.connect()
			return
		}
		if time.Since(started) > 3*time.Minute {
			_ = v.cmd.Process.Kill()
			_ = v.cmd.Wait()
			v.t.Fatalf("the server did not get ready:\n%s", v.stderr.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// connect replaces the connections by new ones with the keys that there are.
func (v *victim) connect() {
	v.t.Helper()
	admin, err := os.ReadFile(filepath.Join(v.dir, "data", "admin.key"))
	if err != nil {
		v.t.Fatal(err)
	}
	v.keys[menshenv1.Role_ROLE_PLATFORM_ADMIN] = strings.TrimSpace(string(admin))
	v.disconnect()
	for role, key := range v.keys {
		secure := v.secure
		if secure == nil {
			secure = insecure.NewCredentials()
		}
		conn, err := client.Connect(v.where, secure, client.BearerKey(key, true))
		if err != nil {
			v.t.Fatal(err)
		}
		v.conns[role] = conn
	}
	info, err := menshenv1.NewAdminServiceClient(v.conns[menshenv1.Role_ROLE_PLATFORM_ADMIN]).GetServerInfo(v.t.Context(), &menshenv1.GetServerInfoRequest{})
	if err != nil {
		v.t.Fatal(err)
	}
	for _, m := range info.Models {
		if m.Kind == "embedder" {
			v.model = m
		}
	}
}

func (v *victim) disconnect() {
	for role, conn := range v.conns {
		conn.Close()
		delete(v.conns, role)
	}
}

// setUp makes tenant, scope and keys, and connects with them.
func (v *victim) setUp() {
	v.t.Helper()
	ctx := v.t.Context()
	check := func(err error) {
		v.t.Helper()
		if err != nil {
			v.t.Fatal(err)
		}
	}
	admin := menshenv1.NewAdminServiceClient(v.conns[menshenv1.Role_ROLE_PLATFORM_ADMIN])
	_, err := admin.CreateTenant(ctx, &menshenv1.CreateTenantRequest{TenantId: "t", Tenant: &menshenv1.Tenant{}})
	check(err)
	for _, role := range []menshenv1.Role{menshenv1.Role_ROLE_TENANT_OPERATOR, menshenv1.Role_ROLE_ENROLLER, menshenv1.Role_ROLE_GATE} {
		cr := &menshenv1.Credential{Role: role}
		if role != menshenv1.Role_ROLE_TENANT_OPERATOR {
			cr.Scopes = []string{v.scope}
		}
		resp, err := admin.CreateCredential(ctx, &menshenv1.CreateCredentialRequest{Parent: "tenants/t", Credential: cr})
		check(err)
		v.keys[role] = resp.ApiKey
		v.connect()
		admin = menshenv1.NewAdminServiceClient(v.conns[menshenv1.Role_ROLE_PLATFORM_ADMIN])
		if role == menshenv1.Role_ROLE_TENANT_OPERATOR {
			_, err := menshenv1.NewScopeServiceClient(v.conns[role]).CreateScope(ctx, &menshenv1.CreateScopeRequest{Parent: "tenants/t", ScopeId: "s", Scope: &menshenv1.Scope{
				Purpose: "p", Site: "s", Alternative: "a", LegalBasis: "l", SingleUse: v.once, EndTime: timestamppb.New(time.Now().Add(24 * time.Hour))}})
			check(err)
		}
	}
}

// stop ends the server in the ordinary way.
func (v *victim) stop() {
	v.t.Helper()
	if err := v.cmd.Process.Signal(os.Interrupt); err != nil {
		v.t.Fatal(err)
	}
	if err := v.cmd.Wait(); err != nil {
		v.t.Errorf("the server ended with %v:\n%s", err, v.stderr.String())
	}
}

// enrolUntilKilled streams enrolments and kills the server by its pid after a
// while, which begins with the first acknowledgement where one is to come before the
// kill. It returns what was sent, and which of it was acknowledged.
func (v *victim) enrolUntilKilled(round int, acknowledged bool, wait time.Duration) (sent map[string][]*menshenv1.Probe, acks []string) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), 3*time.Minute)
	defer cancel()
	stream, err := menshenv1.NewEnrollmentServiceClient(v.conns[menshenv1.Role_ROLE_ENROLLER]).BulkEnroll(ctx)
	if err != nil {
		v.t.Fatal(err)
	}
	done := make(chan map[string][]*menshenv1.Probe)
	dice := rand.New(rand.NewPCG(uint64(round), 2))
	go func() {
		sent := map[string][]*menshenv1.Probe{}
		defer func() { done <- sent }()
		consent := &menshenv1.Consent{Reference: "c", NoticeVersion: "1", GiveTime: timestamppb.Now()}
		for i := 0; ; i++ {
			id := fmt.Sprintf("r%03d-%06d", round, i)
			var probes []*menshenv1.Probe
			for range probesPerSubject {
				probes = append(probes, v.face(dice))
			}
			sent[id] = probes
			if stream.Send(&menshenv1.BulkEnrollRequest{SequenceId: uint64(i), Enroll: &menshenv1.EnrollRequest{
				Parent: v.scope, SubjectId: id, Consent: consent, Probes: probes}}) != nil {
				return
			}
		}
	}()
	killer := time.AfterFunc(time.Hour, func() { _ = v.cmd.Process.Kill() })
	defer killer.Stop()
	kill := sync.OnceFunc(func() { killer.Reset(wait) })
	if !acknowledged {
		kill()
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			if err == io.EOF || status.Code(err) != codes.Unavailable {
				v.t.Errorf("round %d: the stream ended with %v, not with the server", round, err)
				_ = v.cmd.Process.Kill()
			}
			break
		}
		if e := resp.GetError(); e != nil {
			v.t.Errorf("round %d: %s: %s", round, e.Reason, e.Message)
			continue
		}
		acks = append(acks, fmt.Sprintf("r%03d-%06d", round, resp.SequenceId))
		kill()
	}
	cancel()
	sent = <-done
	_ = v.cmd.Wait() // "signal: killed"
	if v.cmd.ProcessState.Success() {
		v.t.Errorf("round %d: the server ended by itself", round)
	}
	return sent, acks
}

// check looks at everything that was sent: what was acknowledged must verify
// with each of its faces, and the rest must be whole or not there.
func (v *victim) check(round int, sent map[string][]*menshenv1.Probe, acks []string) (there, whole int) {
	v.t.Helper()
	acked := map[string]bool{}
	for _, id := range acks {
		acked[id] = true
	}
	desk := menshenv1.NewEnrollmentServiceClient(v.conns[menshenv1.Role_ROLE_ENROLLER])
	for id, probes := range sent {
		resp, err := desk.GetSubject(v.t.Context(), &menshenv1.GetSubjectRequest{Name: v.scope + "/subjects/" + id})
		known := err == nil
		if err != nil && status.Code(err) != codes.NotFound {
			v.t.Fatalf("round %d: %s: %v", round, id, err)
		}
		matches := 0
		for _, p := range probes {
			if v.verify(id, p) == menshenv1.Outcome_OUTCOME_MATCH {
				matches++
			}
		}
		templates := len(resp.GetSubject().GetTemplates())
		switch {
		case known && templates == probesPerSubject && matches == probesPerSubject:
			v.faces[id] = probes
			if acked[id] {
				there++
			} else {
				whole++
			}
		case acked[id]:
			v.t.Errorf("round %d: %s was acknowledged; now it is known: %v, has %d templates and matches %d of %d faces", round, id, known, templates, matches, probesPerSubject)
		case known || matches > 0:
			v.t.Errorf("round %d: %s is half enrolled: known %v, %d templates, %d matches", round, id, known, templates, matches)
		}
	}
	return there, whole
}

// face draws an embedding of nobody: a random direction, which matches itself
// and, in so many dimensions, no other.
func (v *victim) face(dice *rand.Rand) *menshenv1.Probe {
	vector := make([]byte, 0, 4*v.model.Dimension)
	for range v.model.Dimension {
		vector = binary.LittleEndian.AppendUint32(vector, math.Float32bits(float32(dice.NormFloat64())))
	}
	return &menshenv1.Probe{Kind: &menshenv1.Probe_Embedding{Embedding: &menshenv1.Embedding{ModelId: v.model.Id, Vector: vector}}}
}

func (v *victim) verify(id string, probe *menshenv1.Probe) menshenv1.Outcome {
	v.t.Helper()
	resp, err := menshenv1.NewMatchServiceClient(v.conns[menshenv1.Role_ROLE_GATE]).Verify(v.t.Context(), &menshenv1.VerifyRequest{Subject: v.scope + "/subjects/" + id, Probe: probe})
	if err != nil {
		v.t.Fatalf("verify %s: %v", id, err)
	}
	return resp.Decision.Outcome
}
