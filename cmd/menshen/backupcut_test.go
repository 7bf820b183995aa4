package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"google.golang.org/grpc"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// cutShort is a server whose backups end without their summary, or with its death.
type cutShort struct {
	menshenv1.UnimplementedAdminServiceServer
	die func() // nil: it ends the stream as if all were well
}

func (s *cutShort) Backup(_ *menshenv1.BackupRequest, stream grpc.ServerStreamingServer[menshenv1.BackupResponse]) error {
	err := stream.Send(&menshenv1.BackupResponse{Data: make([]byte, 32<<10), EstimatedBytes: 1 << 20})
	if s.die != nil {
		s.die()
		<-stream.Context().Done()
	}
	return err
}

// makeCut runs the backup command against a server, and wants it to fail and to leave
// no file.
func makeCut(t *testing.T, server, key string) string {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	t.Setenv("MENSHEN_API_KEY", key)
	var out, errs strings.Builder
	c := &cli{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
	status := c.run(t.Context(), []string{"backup", "--recipient", identity.Recipient().String(), "--out", filepath.Join(folder, "cut.backup"), "--server", server})
	if status != exitError || out.Len() > 0 {
		t.Errorf("status %d, printed %q, said %q", status, out.String(), errs.String())
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("the command left %v, %v", left, err)
	}
	return errs.String()
}

// A backup that ends without its summary is none, whether the stream ends well or
// breaks off.
func TestBackupWithoutSummary(t *testing.T) {
	for name, dies := range map[string]bool{"the server ended the backup before it was whole": false, "Unavailable": true} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server, service := grpc.NewServer(), &cutShort{}
		if dies {
			service.die = func() { go server.Stop() }
		}
		menshenv1.RegisterAdminServiceServer(server, service)
		go func() { _ = server.Serve(listener) }()
		said := makeCut(t, listener.Addr().String(), "mk_test")
		server.Stop()
		if !dies && !strings.Contains(said, name) || said == "" {
			t.Errorf("%s: the command said %q", name, said)
		}
		t.Logf("said: %s", said)
	}
}

// The server process is killed in the middle of a backup: the command that is making it
// survives, leaves no file and says so.
func TestServerKilledDuringBackup(t *testing.T) {
	v := newVictim(t, runtimeLibrary(t))
	t.Cleanup(v.disconnect)
	v.start()
	v.setUp()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	// What the server sends goes by a pipe that kills it after a few bytes of the
	// backup: an answer's head and its first part are longer.
	killed := make(chan error, 1)
	go killInMiddle(listener, v.where, v.cmd, killed)
	said := makeCut(t, listener.Addr().String(), v.keys[menshenv1.Role_ROLE_PLATFORM_ADMIN])
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	if said == "" {
		t.Error("the command said nothing")
	}
	t.Logf("said: %s", said)
	v.start() // and is none the worse for it
	v.stop()
}

// headBytes are passed on before the server dies: the settings of the connection and
// the beginning of the answer.
const headBytes = 400

func killInMiddle(listener net.Listener, server string, cmd *exec.Cmd, killed chan<- error) {
	client, err := listener.Accept()
	if err != nil {
		killed <- err
		return
	}
	defer client.Close()
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		killed <- err
		return
	}
	defer upstream.Close()
	go func() { _, _ = io.Copy(upstream, client) }()
	_, err = io.CopyN(client, upstream, headBytes)
	if kerr := cmd.Process.Kill(); err == nil {
		err = kerr
	}
	_ = cmd.Wait()
	killed <- err
}
