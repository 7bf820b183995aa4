package store

import "errors"

// Errors of Open.
var (
	// ErrLocked: another process has the data directory open.
	ErrLocked = errors.New("the data directory is in use")
	// ErrReadOnlyDir: the data directory can not be written.
	ErrReadOnlyDir = errors.New("the data directory can not be written")
	// ErrFormat: the directory holds something else, or a format that this
	// version does not know.
	ErrFormat = errors.New("unknown data format")
	// ErrKeyring: the keyring is not the one that the records were sealed with.
	ErrKeyring = errors.New("the keyring does not belong to the data directory")
	// ErrRestoring: a restore into the directory has not been finished.
	ErrRestoring = errors.New("an unfinished restore")
)

// Errors of Restore and VerifyBackup, besides those of Open.
var (
	// ErrBackup: the backup is cut off, altered or none at all.
	ErrBackup = errors.New("not a whole backup")
	// ErrNotEmpty: the directory to restore into holds records.
	ErrNotEmpty = errors.New("the data directory holds records")
)

// ErrFault: a file of the database could not be read or written where it is
// mapped into memory, most often because the disk is full.
var ErrFault = errors.New("the database's files can not be accessed")

// ErrDamaged: what is stored is not what was acknowledged. From Open, Get, List,
// Load and Check.
var ErrDamaged = errors.New("the stored records are damaged")

// Errors of reading.
var (
	// ErrNotFound: there is no such record.
	ErrNotFound = errors.New("no such record")
	// ErrBadKey: the key can not name a record, or the prefix a range.
	ErrBadKey = errors.New("malformed record key")
)

// Errors of writing.
var (
	// ErrBadMutation: the mutation is empty, or mixes scopes.
	ErrBadMutation = errors.New("malformed mutation")
	// ErrTooBig: the value or the mutation exceeds what one transaction holds.
	ErrTooBig = errors.New("too big to store")
	// ErrEpoch: the epoch is not above that of the scope's last mutation.
	ErrEpoch = errors.New("epoch out of order")
	// ErrPermanent: a revocation can neither be changed nor deleted.
	ErrPermanent = errors.New("a revocation is permanent")
	// ErrNoSpace: the file system has less than the reserved space left.
	ErrNoSpace = errors.New("not enough disk space")
	// ErrFailed: an earlier write failed; nothing is written until the store is
	// opened again.
	ErrFailed = errors.New("the store stopped after a failed write")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
	// ErrNotErased: records of an erased scope are still there; erase it again.
	ErrNotErased = errors.New("the scope is not wholly erased")
)
