// Package keyring keeps the keys of scopes, outside the database that holds
// what they seal.
//
// A keyring is one file, sealed under a root key that stands in a file of its
// own. It holds the system key and one random 256-bit key per scope. A scope's
// key seals the scope's records and yields its secret rotation; destroying it
// makes every copy of those records unreadable.
//
// The package promises: a key is durable before Create returns; a destroyed key
// is out of the file, durably, before Destroy returns, its bytes in memory are
// overwritten and handles that are still held go dead; the id of a destroyed
// key is remembered and never gets a key again; keys never appear in an error, a
// log line or any printed form; a file that does not open is an error and never
// an empty keyring.
//
// It does not promise that nothing is left of a destroyed key on the medium.
// The replaced file is overwritten before it is unlinked, which a copy-on-write
// filesystem, a snapshot or a flash drive's wear levelling can defeat; and a copy of an
// older keyring file made by somebody else still opens under the same root key.
// Keep copies of the keyring under the rules of what it guards. The file is
// made ready for the remedy: each write draws a fresh file key and only that key
// is wrapped under the root, so that changing the root key rewraps 32 bytes and
// turns every older copy unreadable together with the old root key.
package keyring
