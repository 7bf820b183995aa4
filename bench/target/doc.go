// Package target prepares what benchmarks measure: a Menshen server as a child
// process (Start), tenants with scopes, keys and enrolled galleries on it
// (Populate), and requests encoded beforehand (Requests), so that a client that
// shares the cores with the server spends next to nothing on making them.
//
// It promises that a child it started is ended, by Close or with the process
// that started it, and that its data are removed. It measures nothing.
//
// All embeddings are synthetic, all faces drawn (bench/faces) unless photographs
// are given; API keys stay in memory.
package target
