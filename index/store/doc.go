// Package store keeps the durable records of the service: it is the only
// importer of Badger, and all that it knows of a record is its key.
//
// Changes arrive as mutations. A mutation is a set of puts and deletes in one
// scope (or in the system space) that becomes durable whole or not at all. One
// committer goroutine takes what is waiting, writes it as one synced
// transaction, and then reports each mutation in the order in which it was
// submitted. Values are sealed before they are written: records of a scope under
// the scope's key, the others under the system key, with the record's place as
// associated data, so that a record which is moved, or whose scope's key was
// destroyed, does not open.
//
// The package promises: what was reported durable survives kill -9 and the loss of
// power, as far as the disk keeps what it said that it synced; a damaged or
// rolled back database is ErrDamaged and never an answer with fewer records; after
// a failed write nothing more is written until the store is opened again; after
// EraseScope no key of the scope is left in the database and none of its sealed
// records in its files, and after Purge none of the records that it was told of; what
// a mutation posts is durable if and only if the mutation is, and is shown until
// somebody has settled it.
//
// How loss is noticed, since Badger by itself drops what follows a damaged byte
// of its log without a word: every space has a Head with the count and a digest of
// its records, written in the same transaction as every change; the tip holds a
// digest of all heads and a sequence number; and a witness file outside Badger
// holds the tip of the last acknowledged transaction. Open compares witness, tip,
// heads and the records of the system space, Load the records of a scope.
//
// It does not promise: that keys are secret (ids stand in the files in clear;
// subject ids are pseudonyms); that the sealed bytes of a deleted or replaced
// record leave the files before Purge or EraseScope removed them (Badger keeps
// old versions until a compaction happens to meet them); that the replacement of the whole
// data directory by an older copy is noticed; that the process survives a disk
// which fills up although the free-space guard said otherwise, or damage that
// appears in mapped files while it runs: Badger maps its files into memory, and
// some of its own checks end the process.
package store
