// Package keyring keeps the keys of scopes, outside the database that holds
// what they seal.
//
// A keyring is one file, sealed under a root key that stands in a file of its
// own, as it is or sealed by a key management service (kms). It holds the system
// key, the signing key, one random 256-bit key per tenant, and one per scope,
// sealed under its tenant's. A scope's key seals the scope's records and yields
// its secret rotation; destroying it makes every copy of those records unreadable.
//
// The package promises: a key is durable before Create returns; a destroyed key
// is out of the file, durably, before Destroy returns, its bytes in memory are
// overwritten and handles that are still held go dead; the id of a destroyed
// key is remembered and never gets a key again; keys never appear in an error, a
// log line or any printed form; a file that does not open is an error and never
// an empty keyring.
//
// When a key is destroyed the root key moves on to its next generation, which
// cannot be computed backwards, and replaces the root file. So no copy of the
// keyring that somebody made before opens under the root key as it is then, nor
// under any later one. Two files change for that, in this order: the next root
// key is put beside the root file, the keyring is replaced by one sealed under it,
// the next root key takes the root file's place. Open finishes what a crash
// interrupted.
//
// Keys of scopes stand in locked memory outside Go's heap, which core dumps leave out;
// what works with them runs on stack that is overwritten afterwards. Keys of tenants,
// which live longer than their scopes, and the signing key stand in Go's heap.
//
// It does not promise that nothing is left of a destroyed key on the medium.
// Replaced files are overwritten before they are unlinked, which a copy-on-write
// filesystem, a snapshot or a flash drive's wear levelling can defeat. And who kept
// copies of both files, the keyring's and the root key's, from before the
// destruction can open them together; a key management service that refuses him
// is the remedy.
package keyring
