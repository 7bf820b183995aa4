package report

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Environment says what a result was measured with and on.
type Environment struct {
	Commit  string    `json:"commit"`  // of the build; "unknown" outside version control
	Changed bool      `json:"changed"` // the sources differed from the commit
	Go      string    `json:"go"`      // version of the compiler
	System  string    `json:"system"`  // operating system and architecture
	CPU     string    `json:"cpu"`     // model name, "unknown" where the system does not say
	Cores   int       `json:"cores"`   // that the program may use
	Command []string  `json:"command"` // the program's name and its arguments
	Started time.Time `json:"started"` // UTC
	Seconds float64   `json:"seconds"` // wall-clock
}

// NewEnvironment describes this process; args is its command line (os.Args), of
// which the program is reduced to its file name. Seconds is left to the caller.
func NewEnvironment(args []string, started time.Time) Environment {
	e := Environment{
		Commit:  "unknown",
		Go:      runtime.Version(),
		System:  runtime.GOOS + "/" + runtime.GOARCH,
		CPU:     "unknown",
		Cores:   runtime.GOMAXPROCS(0),
		Command: append([]string(nil), args...),
		Started: started.UTC().Truncate(time.Second),
	}
	if len(e.Command) > 0 {
		e.Command[0] = filepath.Base(e.Command[0])
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			switch setting.Key {
			case "vcs.revision":
				e.Commit = setting.Value
			case "vcs.modified":
				e.Changed = setting.Value == "true"
			}
		}
	}
	if name := cpuName("/proc/cpuinfo"); name != "" {
		e.CPU = name
	}
	return e
}

// cpuName reads the first processor's name from a file in the form of Linux's
// /proc/cpuinfo. It returns "" where there is none.
func cpuName(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
