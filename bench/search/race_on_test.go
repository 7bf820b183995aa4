//go:build race

package search

// raced says that the race detector is on, whose shadow memory is resident as well:
// sizes are not measured then.
const raced = true
