//go:build unix

package decode

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A pipe without a writer is refused, not waited for.
func TestReadFileRefusesPipes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.jpg")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := ReadFile(path, DefaultLimits())
		result <- err
	}()
	select {
	case err := <-result:
		if !errors.Is(err, ErrFormat) {
			t.Errorf("got %v, want ErrFormat", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("ReadFile waits for a writer")
	}
}
