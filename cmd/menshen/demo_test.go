package main

import (
	"bufio"
	"math"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-io/menshen/models"
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
	cmd.WaitDelay = time.Minute
	return cmd
}

func TestThresholdFollowsTheCalibration(t *testing.T) {
	points := []models.CalibrationPoint{{FMR: 1e-7, Score: 0.5}, {FMR: 1e-5, Score: 0.3}, {FMR: 1e-6, Score: 0.4}} // any order
	for n, want := range map[int]float64{
		1: 0.4, 2000: 0.4, 20_000: 0.5, // on the points: 0.002 / n
		6325:       0.45, // half way between two, in the logarithm
		10_000_000: 0.5,  // beyond the calibration
	} {
		if got := thresholdFor(n, points); math.Abs(got-want) > 1e-4 {
			t.Errorf("%d: %.5f, want %.5f", n, got, want)
		}
	}
	if got := thresholdFor(2000, points[:1]); got != 0.5 {
		t.Errorf("one strict point: %v", got)
	}
	if got := thresholdFor(2000, nil); got != 0 {
		t.Errorf("no calibration: %v", got)
	}
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
