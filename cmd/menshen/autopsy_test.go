package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// TestAutopsy enrols templates whose codes it can compute, as somebody could who
// holds the root key, uses them in every way there is, rotates the root key, revokes
// their scope, and then searches every byte of the data directory, the backups and
// the server's memory.
//
// No code is ever on disk or in a backup. After the revocation nothing of the scope
// is left: no sealed record and no key on disk or in a backup made then; no code, no
// embedding, no key, rotation or earlier root key in the memory of the server that
// goes on, and of the sealed records a fraction of a percent that is explained below.
// A copy of the data directory from before opens with nothing that is left,
// and an earlier backup that is restored brings nothing of the scope back.
func TestAutopsy(t *testing.T) {
	v := newVictim(t, runtimeLibrary(t))
	t.Cleanup(v.disconnect)
	data, root := filepath.Join(v.dir, "data"), filepath.Join(v.dir, "keys", "root.key")
	if err := os.MkdirAll(filepath.Dir(root), 0o700); err != nil {
		t.Fatal(err)
	}
	v.extra = []string{"--root-key-file", root}
	v.start()
	v.setUp()
	faces := v.mark("early", 40)
	v.use(faces)
	v.stop()
	drawn := rootSecrets(t, root)
	v.command("keys", "rotate", "--data-dir", data, "--root-key-file", root)
	v.start() // codes come from the disk now, and of those who are new from calls
	maps.Copy(faces, v.mark("late", 40))
	v.fill(4200) // so many that probes share a pass
	v.use(faces)
	v.crowd(faces)

	// Before: whoever holds the root key can open the scope.
	before := filepath.Join(v.dir, "before")
	copyTree(t, data, before)
	copyFile(t, root, filepath.Join(before, "root.key"))
	identity := v.backup("early.backup")
	ref := scope.Ref{Tenant: "t", Scope: "s"}
	secrets := openByHand(t, filepath.Join(before, "keyring"), filepath.Join(before, "root.key"), ref)
	templates, rotation := codesOf(t, secrets["rotation seed"], v.model.Dimension, faces)
	sealed := sealedRecords(t, data, ref)
	if n := templates.inFiles(t, v.dir); n > 0 {
		t.Errorf("%d pieces of plaintext codes are on the disk while the scope lives", n)
	}
	if n := sealed.inFiles(t, data); n == 0 {
		t.Error("the search finds no sealed record while the scope lives: it shows nothing")
	}
	payload := v.openBackup("early.backup", identity)
	if n := templates.in(payload); n > 0 {
		t.Errorf("%d pieces of plaintext codes are in the backup", n)
	}
	if n := sealed.in(payload); n == 0 {
		t.Error("the search finds no sealed record in the backup from before: it shows nothing")
	}
	keys := chunks{}
	for name, secret := range secrets {
		keys.add(name, secret)
		keys.addPads(name, secret)
	}
	everything := chunks{} // what may be nowhere in memory afterwards
	for _, c := range []chunks{keys, templates, rotation} {
		maps.Copy(everything, c)
	}
	for i, secret := range slices.Concat(drawn, rootSecrets(t, root)) {
		everything.add(fmt.Sprint("earlier root key ", i), secret)
	}
	for id, face := range faces {
		everything.add(embeddingOf+id, face.GetEmbedding().Vector)
	}
	if found := everything.inMemory(t, v.cmd.Process.Pid); found != nil {
		for _, name := range []string{"early-1", "late-2", "scope key", "key of records", "rotation", "decoy seed"} {
			if found[name] == 0 {
				t.Errorf("the search finds no %s in the memory of a server that matches: it shows nothing", name)
			}
		}
	}

	_, err := menshenv1.NewScopeServiceClient(v.conns[menshenv1.Role_ROLE_TENANT_OPERATOR]).RevokeScope(t.Context(), &menshenv1.RevokeScopeRequest{Name: v.scope})
	if err != nil {
		t.Fatal(err)
	}

	// After: the memory of the server that goes on, then the files. What a vector
	// register held when the system interrupted the copying of a code or of an embedding
	// may be found; half of one may not. Of keys nothing may.
	for name, n := range everything.inMemory(t, v.cmd.Process.Pid) {
		embedded, isEmbedding := strings.CutPrefix(name, embeddingOf)
		if _, isFace := faces[embedded]; isFace && isEmbedding && n < int(v.model.Dimension)*4/chunkLen/2 ||
			isFace && n < int(v.model.Dimension)/chunkLen/2 {
			t.Logf("%d pieces of %s are in the server's memory after the revocation", n, name)
			continue
		}
		t.Errorf("%d pieces of %s are in the server's memory after the revocation", n, name)
	}
	// Of the sealed records, whose key is gone, most are in memory that is free by now.
	// The rounds of scouring end when Badger has let go of its buffers. What stays are
	// single records, copied for a moment into small objects beside others that are in
	// use, and what vector registers held.
	all, left := 0, 0
	for _, list := range sealed {
		all += len(list)
	}
	for deadline := time.Now().Add(40 * time.Second); ; time.Sleep(time.Second) {
		left = sealed.inMemory(t, v.cmd.Process.Pid)["a record"]
		if left <= all/sealedRest || time.Now().After(deadline) {
			break
		}
	}
	t.Logf("%d of %d pieces of sealed records are in the server's memory after the scouring", left, all)
	// On a machine that is busy with other things Badger may keep buffers for longer than
	// this waits, so the bound is asked for by name: MENSHEN_AUTOPSY_STRICT=1.
	if left > all/sealedRest && os.Getenv("MENSHEN_AUTOPSY_STRICT") != "" {
		t.Errorf("%d of %d pieces of sealed records stay in the server's memory", left, all)
	}
	identity = v.backup("late.backup")
	for what, c := range map[string]chunks{"plaintext codes": templates, "sealed records": sealed, "keys": keys} {
		if n := c.in(v.openBackup("late.backup", identity)) + c.inFiles(t, filepath.Join(v.dir, "late.backup")); n > 0 {
			t.Errorf("%d pieces of %s are in the backup from after the revocation", n, what)
		}
	}
	for _, stopped := range []bool{false, true} {
		if stopped {
			v.stop()
		}
		for what, c := range map[string]chunks{"plaintext codes": templates, "sealed records": sealed, "keys": keys} {
			for _, dir := range []string{data, filepath.Dir(root)} {
				if n := c.inFiles(t, dir); n > 0 {
					t.Errorf("%d pieces of %s are in %s after the revocation (server stopped: %t)", n, what, filepath.Base(dir), stopped)
				}
			}
		}
	}
	cannotOpen(t, before, data, root, ref)

	// The earlier backup, restored beside today's keyring and receipts.
	if err := os.RemoveAll(filepath.Join(data, "records")); err != nil {
		t.Fatal(err)
	}
	v.command("restore", "--in", filepath.Join(v.dir, "early.backup"), "--identity", filepath.Join(v.dir, "early.backup.identity"), "--data-dir", data, "--root-key-file", root)
	if n := templates.inFiles(t, data) + keys.inFiles(t, data); n > 0 {
		t.Errorf("%d pieces of codes and keys are on the disk after the restore", n)
	}
	cannotOpen(t, "", data, root, ref)
}

// sealedRest is how small a part of the sealed records may stay in memory.
const sealedRest = 500

// embeddingOf begins the names of the pieces of embeddings; codes have the name of
// the face alone.
const embeddingOf = "the embedding of "

// mark enrols people with one template each, half of them in a stream, and returns
// the faces enrolled.
func (v *victim) mark(when string, n int) map[string]*menshenv1.Probe {
	v.t.Helper()
	faces := map[string]*menshenv1.Probe{}
	var many []*menshenv1.EnrollRequest
	for i := range n {
		id := fmt.Sprintf("%s-%d", when, i)
		faces[id] = v.face(v.dice)
		req := v.enrolment(id, faces[id])
		if i%2 == 0 {
			req.RequestId = "" // its fingerprint is made of the message
			many = append(many, req)
			continue
		}
		req.RequestId = "enrol-" + id
		if _, err := menshenv1.NewEnrollmentServiceClient(v.conns[menshenv1.Role_ROLE_ENROLLER]).Enroll(v.t.Context(), req); err != nil {
			v.t.Fatal(err)
		}
	}
	v.enrolMany(many)
	return faces
}

func (v *victim) enrolment(id string, face *menshenv1.Probe) *menshenv1.EnrollRequest {
	return &menshenv1.EnrollRequest{Parent: v.scope, SubjectId: id, Probes: []*menshenv1.Probe{face},
		Consent: &menshenv1.Consent{Reference: "c", NoticeVersion: "1", GiveTime: timestamppb.Now()}}
}

// fill enrols people whom nobody searches for.
func (v *victim) fill(n int) {
	v.t.Helper()
	var many []*menshenv1.EnrollRequest
	for i := range n {
		many = append(many, v.enrolment(fmt.Sprint("filler-", i), v.face(v.dice)))
	}
	v.enrolMany(many)
}

func (v *victim) enrolMany(reqs []*menshenv1.EnrollRequest) {
	v.t.Helper()
	stream, err := menshenv1.NewEnrollmentServiceClient(v.conns[menshenv1.Role_ROLE_ENROLLER]).BulkEnroll(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	go func() {
		for i, req := range reqs {
			if stream.Send(&menshenv1.BulkEnrollRequest{SequenceId: uint64(i), Enroll: req}) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil || resp.GetError() != nil {
			v.t.Fatal(err, resp.GetError())
		}
	}
}

// use verifies and identifies everybody, one by one.
func (v *victim) use(faces map[string]*menshenv1.Probe) {
	v.t.Helper()
	for id, face := range faces {
		if outcome := v.verify(id, face); outcome != menshenv1.Outcome_OUTCOME_MATCH {
			v.t.Fatalf("%s: %s", id, outcome)
		}
		if err := v.identify(id, face); err != nil {
			v.t.Fatal(err)
		}
	}
}

func (v *victim) identify(id string, face *menshenv1.Probe) error {
	resp, err := menshenv1.NewMatchServiceClient(v.conns[menshenv1.Role_ROLE_GATE]).Identify(v.t.Context(), &menshenv1.IdentifyRequest{Scope: v.scope, Probe: face})
	if err != nil || resp.Results[0].Decision.Outcome != menshenv1.Outcome_OUTCOME_MATCH {
		return fmt.Errorf("%s is not identified: %v, %w", id, resp, err)
	}
	return nil
}

// crowd identifies everybody at the same time, so that probes wait for each other and
// share passes over the gallery, and verifies everybody on a stream. A machine that is
// too busy may refuse some.
func (v *victim) crowd(faces map[string]*menshenv1.Probe) {
	v.t.Helper()
	var wg sync.WaitGroup
	for id, face := range faces {
		wg.Go(func() {
			for range 3 {
				_ = v.identify(id, face)
			}
		})
	}
	wg.Wait()
	stream, err := menshenv1.NewMatchServiceClient(v.conns[menshenv1.Role_ROLE_GATE]).MatchStream(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	go func() {
		for id, face := range faces {
			_ = stream.Send(&menshenv1.MatchStreamRequest{Request: &menshenv1.MatchStreamRequest_Verify{
				Verify: &menshenv1.VerifyRequest{Subject: v.scope + "/subjects/" + id, Probe: face}}})
			_ = stream.Send(&menshenv1.MatchStreamRequest{Request: &menshenv1.MatchStreamRequest_Identify{
				Identify: &menshenv1.IdentifyRequest{Scope: v.scope, Probe: face}}})
		}
		_ = stream.CloseSend()
	}()
	matches := 0
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			v.t.Fatal(err)
		}
		if resp.GetVerify().GetDecision().GetOutcome() == menshenv1.Outcome_OUTCOME_MATCH {
			matches++
		}
	}
	if matches == 0 {
		v.t.Error("nobody was verified on a stream")
	}
}

// command runs a command of menshen on its own.
func (v *victim) command(args ...string) {
	v.t.Helper()
	cmd := child(v.t, v.library, args...)
	if err := cmd.Run(); err != nil {
		v.t.Fatalf("menshen %s: %v\n%s", args[0], err, cmd.Stderr)
	}
}

// backup backs the server up into a file of its folder, and keeps the identity
// beside it.
func (v *victim) backup(name string) *age.X25519Identity {
	v.t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		v.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.dir, name+".identity"), []byte(id.String()+"\n"), 0o600); err != nil {
		v.t.Fatal(err)
	}
	stream, err := menshenv1.NewAdminServiceClient(v.conns[menshenv1.Role_ROLE_PLATFORM_ADMIN]).Backup(v.t.Context(), &menshenv1.BackupRequest{Recipients: []string{id.Recipient().String()}})
	if err != nil {
		v.t.Fatal(err)
	}
	var whole []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			v.t.Fatal(err)
		}
		whole = append(whole, part.GetData()...)
	}
	if err := os.WriteFile(filepath.Join(v.dir, name), whole, 0o600); err != nil {
		v.t.Fatal(err)
	}
	return id
}

func (v *victim) openBackup(name string, id age.Identity) []byte {
	v.t.Helper()
	f, err := os.Open(filepath.Join(v.dir, name))
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	plain, err := age.Decrypt(f, id)
	if err != nil {
		v.t.Fatal(err)
	}
	b, err := io.ReadAll(plain)
	if err != nil {
		v.t.Fatal(err)
	}
	return b
}

// cannotOpen tries what is left on a copy from before, and on the records of today.
func cannotOpen(t *testing.T, before, data, root string, ref scope.Ref) {
	t.Helper()
	load := func() *keyring.Root {
		r, err := keyring.LoadRoot(root, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	records := data
	if before != "" {
		records = before
		if k, err := keyring.Open(filepath.Join(before, "keyring"), load(), keyring.Options{}); err == nil {
			k.Close()
			t.Error("the old keyring opens under today's root key")
		} else if !errors.Is(err, keyring.ErrOldCopy) {
			t.Errorf("the old keyring: %v, want ErrOldCopy", err)
		}
	}
	k, err := keyring.Open(filepath.Join(data, "keyring"), load(), keyring.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	s, err := store.Open(context.Background(), store.Options{Dir: records, Keyring: k})
	if err != nil {
		t.Fatalf("the old records beside today's keyring: %v; want them open, but those of the scope", err)
	}
	defer s.Close()
	if records, err := s.List(store.Key{Kind: store.KindTemplate, Ref: ref, ID: "early-1"}, "", 10); !errors.Is(err, keyring.ErrDestroyed) {
		t.Errorf("old templates beside today's keyring: %d read, %v; want ErrDestroyed", len(records), err)
	}
	n := 0
	if _, err := s.Load(ref, func(store.Record) error { n++; return nil }); !errors.Is(err, keyring.ErrDestroyed) || n > 0 {
		t.Errorf("the old scope beside today's keyring: %d records, %v; want ErrDestroyed", n, err)
	}
}
