// Package rpc serves the API of proto/menshen/v1 over gRPC: it is the one room
// that knows proto messages and status codes.
//
// A call passes, in this order: the policy table, the credential and its role
// (policy.go, before the request message is read), a second look at the
// credential once the message is there, the conversion of the message
// (match.go, enrollment.go, scope.go, admin.go), a grant for exactly the scope
// and the use that the method's row names, the matcher, and the table of errors
// (status.go).
//
// Promises: a method without a row in the policy table is refused; a handler
// cannot choose what its grant permits; a name of a foreign scope is refused
// like that of a scope which does not exist; every error of the service carries
// an ErrorInfo with a stable reason and a text that says what to do, and an
// error that the table does not know is INTERNAL with a constant text; no
// payload, key or embedding is logged. Memory of a stream is bounded however
// little its client reads, and that of messages on their way in all (arrive);
// calls on which nothing moves are cut off; a call that the machine has no room
// for is refused by its headers.
package rpc
