package audit

import "errors"

// Errors of opening a log and of reading one.
var (
	// ErrDamaged: the files are not what was written. A log in this state does
	// not open; see Options.AcceptDamage.
	ErrDamaged = errors.New("the audit log is damaged")
	// ErrLocked: another process has the log open.
	ErrLocked = errors.New("the audit log is in use")
)

// Errors of writing.
var (
	// ErrInvalid: the event holds what must not be written, or lacks what must.
	ErrInvalid = errors.New("not a valid audit event")
	// ErrBusy: the queue of decisions is full.
	ErrBusy = errors.New("the audit log does not keep up")
	// ErrNoSpace: the disk is full. Nothing was written, and the next write may succeed.
	ErrNoSpace = errors.New("no space for the audit log")
	// ErrFailed: a write or sync failed in a way that leaves the file unknown.
	// The chain takes nothing more until the log is opened again.
	ErrFailed = errors.New("the audit log cannot be written")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("the audit log is closed")
)

// ErrPseudonyms: the state of the pseudonyms is malformed.
var ErrPseudonyms = errors.New("malformed state of the audit pseudonyms")
