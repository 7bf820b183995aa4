//go:build !race

package audit

// raceEnabled shortens long tests under the race detector.
const raceEnabled = false
