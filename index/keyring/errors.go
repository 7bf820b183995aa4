package keyring

import "errors"

// Errors of the root key.
var (
	// ErrRootKeyExists: the file is there already and is not overwritten.
	ErrRootKeyExists = errors.New("the root key file exists")
	// ErrRootKeyMode: others than the owner may read the root key file.
	ErrRootKeyMode = errors.New("the root key file is open to others")
	// ErrRootKeyFormat: the file is not a root key file.
	ErrRootKeyFormat = errors.New("not a root key file")
	// ErrRootKeyFixed: the root key file cannot be replaced.
	ErrRootKeyFixed = errors.New("the root key file cannot be replaced")
	// ErrKeeper: the key management service that seals the root key is the wrong
	// one, is missing, or did not answer.
	ErrKeeper = errors.New("the key management service of the root key")
)

// Errors of opening a keyring.
var (
	// ErrMissing: there is no keyring file and Options.Create was not set.
	ErrMissing = errors.New("no keyring file")
	// ErrWrongRoot: the root key is not the one that sealed the keyring.
	ErrWrongRoot = errors.New("the root key does not open the keyring")
	// ErrOldCopy: the keyring was sealed before a scope was destroyed, and the root
	// key has moved on since.
	ErrOldCopy = errors.New("an older copy of the keyring")
	// ErrDamaged: the keyring file is not what was written.
	ErrDamaged = errors.New("the keyring file is damaged")
	// ErrLocked: another process has the keyring open.
	ErrLocked = errors.New("the keyring is in use")
)

// Errors of using a keyring.
var (
	// ErrExists: the scope has a key already.
	ErrExists = errors.New("the scope has a key")
	// ErrNoKey: the scope has no key, never had one or has it no longer.
	ErrNoKey = errors.New("no key for the scope")
	// ErrDestroyed: the scope's key was destroyed. It wraps ErrNoKey.
	ErrDestroyed error = destroyedError{}
	// ErrPseudonyms: the state of the pseudonyms is empty or too long.
	ErrPseudonyms = errors.New("not a state of pseudonyms")
	// ErrClosed: the keyring was closed and its keys are gone from memory.
	ErrClosed = errors.New("the keyring is closed")
	// ErrSealed: the sealed bytes do not open under this key and associated
	// data: altered, moved or sealed under another key.
	ErrSealed = errors.New("the sealed bytes do not open")
)

// destroyedError lets callers who only ask whether there is a key match
// ErrNoKey, and those who ask why match ErrDestroyed.
type destroyedError struct{}

func (destroyedError) Error() string { return "the scope's key was destroyed" }
func (destroyedError) Unwrap() error { return ErrNoKey }
