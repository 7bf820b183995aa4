//go:build !linux

package scour

// refreshFrames: elsewhere frames are left as they are.
func refreshFrames() {}
