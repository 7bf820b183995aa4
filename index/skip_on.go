//go:build race

package index

// skipDead says that scans compute live rows alone; see shardView.span.
const skipDead = true
