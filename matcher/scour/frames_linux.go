package scour

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// refreshFrames interrupts all threads with the signal that Go's scheduler uses for
// that, and which does nothing to a thread that is not to be preempted; those that are
// not Go's pass it over too. A thread that is gone meanwhile needs none.
func refreshFrames() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil {
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
		}
	}
}
