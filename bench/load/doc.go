// Package load measures a server under load that does not wait for it.
//
// The generator is open-loop: calls are due at times that a schedule draws
// beforehand (Arrivals), whether or not earlier ones have been answered, as
// people arrive at a gate. A call's latency counts from when it was due, so that
// a server that stops for a second is charged for all who waited during it, and
// nothing has to be corrected afterwards (what is called coordinated omission
// does not arise).
//
// It promises to be bounded: there are never more than Options.Outstanding calls
// under way; what was due beyond that is counted as not sent, and then it was
// the generator that reached its limit. Outcomes, refusals and errors are kept
// apart: what is refused is no latency of an answer.
//
// Run plays phases of given rates; Constant, Step, DoorsOpen, Overload, Fairness
// and Stalled are the profiles that are made of them. The package knows the API
// of the server (bench/target makes the requests) and neither flags nor
// terminals.
package load
