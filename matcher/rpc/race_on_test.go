//go:build race

package rpc

// raceEnabled: the race detector allocates too, so that counts mean nothing.
const raceEnabled = true
