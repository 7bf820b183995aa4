// Package signing signs statements that are to be checked elsewhere, years
// later and without the service: receipts of erasures and checkpoints of the
// audit log.
//
// A signed document is a JSON file that a person can read:
//
//	{
//	  "type": "menshen.receipt.v1",
//	  "statement": { ... },
//	  "signature": { "key_id": "...", "value": "..." }
//	}
//
// The signature is Ed25519 (RFC 8032) over the type, the key id and the
// statement in its compact form, each with its length in front, so that a
// signature made for one purpose never passes for another. The envelope of the
// DSSE specification does the same, but carries the statement in base64, which
// nobody can read on paper; its reason for that, that JSON has many spellings,
// is met in another way: there is one spelling, the one that Sign writes, and
// Parse refuses every other. So every changed byte of a document is noticed,
// white space included.
//
// The package promises: a document that Parse accepts was made by Sign with one
// of the given keys, for this type, with exactly this content; private keys
// appear in no error and no printed form. It does not store keys, and it does not
// know when a document was made: times in a statement are the signer's word.
package signing
