//go:build race

package index

// raced says that the race detector is on, which makes a dot product thirty
// times slower: tests of numbers then take a smaller sample.
const raced = true
