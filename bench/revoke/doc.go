// Package revoke measures the end of a purpose: a scope is revoked on a running
// server while clients verify and identify in it and in another one.
//
// It promises to count every answer MATCH that reached a client too late, and to
// measure the other scope's latency from when each call was due, so that a
// server that stops is charged for everybody who came meanwhile. It starts no
// server and enrols nobody (bench/target does); it does not read the receipt.
package revoke
