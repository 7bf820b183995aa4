package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/backup"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// identity makes an age identity: its file, and its recipient.
func identity(t testing.TB) (file, recipient string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(file, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, id.Recipient().String()
}

// receive takes a whole backup.
func receive(stream grpc.ServerStreamingClient[pb.BackupResponse], err error) (file []byte, summary *pb.BackupSummary, _ error) {
	for err == nil {
		var part *pb.BackupResponse
		if part, err = stream.Recv(); err == nil {
			file = append(file, part.GetData()...)
			summary = part.GetSummary()
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return file, summary, err
}

func TestBackup(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("visitor-"+string(rune('a'+i)), vectorOf(uint16(i), 0)))
		w.ok(err)
	}
	key, recipient := identity(t)
	file, summary, err := receive(w.administer("admin").Backup(w.ctx(), &pb.BackupRequest{Recipients: []string{recipient}}))
	w.ok(err)
	if summary.GetScopes() != 3 || summary.GetDamagedScopes() != 0 || summary.GetRecords() < 40 {
		t.Errorf("summary %v", summary)
	}
	plain, err := backup.Decrypt(bytes.NewReader(file), key)
	w.ok(err)
	found, err := store.VerifyBackup(plain)
	w.ok(err)
	if found.Records != uint64(summary.GetRecords())+1 || found.Origin.LedgerSum == "" {
		t.Errorf("the file holds %d records, the summary says %v; %+v", found.Records, summary, found.Origin)
	}
	other, _ := identity(t)
	if _, err := backup.Decrypt(bytes.NewReader(file), other); !errors.Is(err, backup.ErrEncrypted) {
		t.Errorf("another identity opens it: %v", err)
	}
}

func TestBackupRefusals(t *testing.T) {
	w := newWorld(t)
	key, recipient := identity(t)
	secret, err := os.ReadFile(key)
	w.ok(err)
	for name, recipients := range map[string][]string{
		"none": nil, "nonsense": {"bob"}, "cut": {recipient[:20]}, "secret": {string(secret)}, "many": make([]string, backup.MaxRecipients+1),
		"two lines": {recipient + "\n" + recipient},
	} {
		_, _, err := receive(w.administer("admin").Backup(w.ctx(), &pb.BackupRequest{Recipients: recipients}))
		w.want(name, err, codes.InvalidArgument, "BAD_RECIPIENT")
		if bytes.Contains([]byte(err.Error()), bytes.TrimSpace(secret)) {
			t.Error("the answer repeats a secret")
		}
	}
	_, _, err = receive(w.administer("operator").Backup(w.ctx(), &pb.BackupRequest{Recipients: []string{recipient}}))
	w.want("an operator", err, codes.PermissionDenied, "ROLE_NOT_ALLOWED")
}

// One backup is made at a time, and it ends with the credential that asked.
func TestBackupOfARevokedCaller(t *testing.T) {
	const dim = 1024 // so that a few subjects are more than the connection buffers
	w := newWorldOf(t, &fakeModels{dim: dim})
	for i := range 300 {
		var probes []*pb.Probe
		for shot := range byte(5) {
			probes = append(probes, vectorProbe(fakeModelID(), embeddingIn(dim, uint16(i), shot)...))
		}
		_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment(fmt.Sprint("visitor-", i), probes...))
		w.ok(err)
	}
	_, recipient := identity(t)
	conn := w.dial(append(withHeader("authorization", "Bearer "+w.keys["admin"]), grpc.WithInitialWindowSize(64<<10), grpc.WithStaticStreamWindowSize(64<<10))...)
	stream, err := pb.NewAdminServiceClient(conn).Backup(w.ctx(), &pb.BackupRequest{Recipients: []string{recipient}})
	w.ok(err)
	_, err = stream.Recv() // it has begun, and waits for us to take more
	w.ok(err)
	w.credential("second", 1, "")
	_, _, err = receive(w.administer("second").Backup(w.ctx(), &pb.BackupRequest{Recipients: []string{recipient}}))
	w.want("a second backup", err, codes.ResourceExhausted, "BACKUP_RUNNING")
	_, err = w.administer("second").RevokeCredential(w.ctx(), &pb.RevokeCredentialRequest{Name: "credentials/" + string(w.ids["admin"])})
	w.ok(err)
	_, _, err = receive(stream, nil)
	w.want("the rest for a revoked key", err, codes.Unauthenticated, "CREDENTIAL_INVALID")
}
