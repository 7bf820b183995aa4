// Package auth turns API keys and client certificates into callers, and callers
// into grants.
//
// A key is 256 random bits under a random id; only a SHA-256 of the bits is
// stored. A certificate counts by the identity in it, a SPIFFE ID or its subject,
// matched exactly. Authority.Caller gives a Caller, by what the server's Proof
// demands, and a Caller mints the scope.Grant of one call, with exactly the use
// that the call needs.
//
// Promises: the zero Caller may do nothing; a caller never gets a grant for a
// scope outside its credential, and cannot tell from the refusal whether that
// scope exists; every refused key is refused alike, in text and in time; once
// RevokeCredential has returned, neither a new call nor Check of a running one
// accepts the credential; nobody makes a credential that reaches further than
// their own; at most one live credential is bound to a certificate, and it is
// never accepted without it. What it does not do: transport security, verifying
// certificates, rate limits, or deciding
// which call needs which use (matcher/rpc holds that table).
//
// Tenants and credentials live in memory and in the system space of the store.
// Tenants are never deleted and credential ids are never used twice.
package auth
