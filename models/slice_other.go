//go:build !linux

package models

// patience is of use on Linux alone.
type patience struct{}

func newPatience() patience { return patience{} }
func (patience) begin()     {}
func (patience) end()       {}
