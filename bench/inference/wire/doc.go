// Package wire measures what a call costs over gRPC: how many a second lanes of
// callers get from a server, one call at a time each (Unary) or over streams
// with several requests in flight (Stream), and how many a bare gRPC server
// gives them that does nothing but answer as many bytes (ServeEcho).
//
// All sides of a comparison have the same client: it sends frames that were
// encoded before and takes answers as bytes, so that what a ratio tells is the
// server's. It promises that answers are looked at: the first of each lane and
// every checkEvery-th go through Target.Check, that a refusal counts as no answer,
// and that any other failed call fails the measurement. It does not start servers
// of the product and knows no credentials: connections come from its caller.
package wire
