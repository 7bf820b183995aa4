//go:build !linux

package load

// hungUp cannot tell without reading.
func hungUp(clients []*stalledClient) []bool { return make([]bool, len(clients)) }
