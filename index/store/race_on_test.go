//go:build race

package store

// raceEnabled: children start ten times slower under the race detector.
const raceEnabled = true
