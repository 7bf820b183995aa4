package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/menshen-io/menshen/models"
)

// ErrChild: a child process could not be started or ended on its own; the text
// holds the last it said.
var ErrChild = errors.New("the child process failed")

// Process is a child that listens on a loopback address.
type Process struct {
	Address string

	cmd   *exec.Cmd
	said  *tail
	ended chan struct{} // closed when it has ended
	err   error         // why, once ended is closed
}

const (
	// startTimeout bounds the wait for a child that loads models and galleries.
	startTimeout = 60 * time.Second
	// stopTimeout is given to a child that was asked to end.
	stopTimeout = 20 * time.Second
)

// Run starts a program and waits until it has written the address that it
// listens on to addressFile. The arguments must make it do so. The child dies
// with this process. Error: ErrChild.
func Run(ctx context.Context, addressFile, program string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(program, args...), said: &tail{}, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = io.Discard, p.said
	p.cmd.Env = environment()
	p.cmd.SysProcAttr = dieWithParent()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrChild, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-p.ended:
			return nil, fmt.Errorf("%w: %s: %v; it said: %s", ErrChild, filepath.Base(program), p.err, p.said)
		case <-deadline.C:
			p.Close()
			return nil, fmt.Errorf("%w: %s was not ready within %s; it said: %s", ErrChild, filepath.Base(program), startTimeout, p.said)
		case <-ctx.Done():
			p.Close()
			return nil, ctx.Err()
		case <-look.C:
			text, err := os.ReadFile(addressFile)
			if err == nil && bytes.HasSuffix(text, []byte("\n")) {
				p.Address = strings.TrimSpace(string(text))
				return p, nil
			}
		}
	}
}

// environment is this process's without the settings of a server, which would
// make of the child something else than was asked for.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "MENSHEN_") && !strings.HasPrefix(entry, models.LibraryEnv+"=")
	})
}

// PID is the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the child has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Close asks the child to end, and kills it when it does not. It returns nil
// also for a child that had ended before.
func (p *Process) Close() error {
	// The child may be gone already; then there is nobody to tell.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	return fmt.Errorf("%w: it had to be killed, since it did not end within %s; it said: %s", ErrChild, stopTimeout, p.said)
}

// Usage is what a process has used so far.
type Usage struct {
	CPU  time.Duration // of all threads
	RSS  int64         // bytes in memory now
	Peak int64         // the most that it had in memory
}

// UsageOf reads the usage of a process; ok is false where the system does not
// tell (anywhere but on Linux) or the process has ended.
func UsageOf(pid int) (u Usage, ok bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, false
	}
	// The name, in parentheses, may hold anything; after it come state (field 3)
	// and, as fields 14 and 15, user and system time in ticks.
	_, rest, found := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 13 {
		return u, false
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	u.CPU = time.Duration(user+system) * (time.Second / ticksPerSecond)
	status, err3 := os.ReadFile(dir + "/status")
	if errors.Join(err1, err2, err3) != nil {
		return u, false
	}
	for line := range strings.Lines(string(status)) {
		label, value, _ := strings.Cut(line, ":")
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch {
		case err != nil:
		case label == "VmRSS":
			u.RSS = kb << 10
		case label == "VmHWM":
			u.Peak = kb << 10
		}
	}
	return u, true
}

// MachineCPU reads what all processes of the machine have used so far, with what
// its host took away (steal). Interrupts are left out: they are mostly the work
// of the loopback network, and stand in no process's usage. ok is false where the
// system does not tell.
func MachineCPU() (used time.Duration, ok bool) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(first)
	// cpu user nice system idle iowait irq softirq steal
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, false
	}
	for i, f := range fields[1:9] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, false
		}
		if i <= 2 || i == 7 { // user, nice, system, steal
			used += time.Duration(ticks) * (time.Second / ticksPerSecond)
		}
	}
	return used, true
}

// ticksPerSecond is USER_HZ, which Linux shows to programs on every machine that
// Go runs on.
const ticksPerSecond = 100

// tail keeps the last that was written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// maxTail is a few lines of a log.
const maxTail = 2048

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - maxTail; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

// String is the text without lines that hold an API key.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var kept []string
	for line := range strings.Lines(string(t.text)) {
		if !strings.Contains(line, "admin key") {
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	return strings.Join(kept, " | ")
}
