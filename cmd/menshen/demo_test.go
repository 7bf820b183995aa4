package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// child prepares the test binary as menshen, with folders of its own.
func child(t *testing.T, library string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	home := t.TempDir()
	cmd.Env = []string{childEnv + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_CACHE_HOME=" + home, "TMPDIR=" + home, "MENSHEN_ONNXRUNTIME=" + library}
	cmd.Stderr = &strings.Builder{}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// TestInterruptedDemoCleansUp sends SIGINT in the middle of the enrolment.
func TestInterruptedDemoCleansUp(t *testing.T) {
	cmd := child(t, runtimeLibrary(t), "demo", "--visitors", "100000")
	temp := t.TempDir()
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "Enrolling") {
			if names, err := os.ReadDir(temp); err != nil || len(names) == 0 {
				t.Errorf("the demo works elsewhere: %v", err)
			}
			time.Sleep(200 * time.Millisecond)
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitError {
		t.Errorf("ended with %v", err)
	}
	if text := cmd.Stderr.(*strings.Builder).String(); !strings.Contains(text, "did not come to its end: interrupted") {
		t.Errorf("stderr: %s", text)
	}
	names, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		t.Errorf("left behind: %s", n.Name())
	}
}
