package signing

import "errors"

// Errors of keys.
var (
	// ErrKeyForm: the bytes or the text are no key.
	ErrKeyForm = errors.New("not a signing key")
	// ErrWiped: the private key was overwritten, or never set.
	ErrWiped = errors.New("the signing key is gone")
)

// Errors of documents.
var (
	// ErrForm: the document is not written as Sign writes it.
	ErrForm = errors.New("not in the form of a signed document")
	// ErrType: the document is of another type or version than expected.
	ErrType = errors.New("signed document of another type or version")
	// ErrUnknownKey: the document names a key that is not among the given ones.
	ErrUnknownKey = errors.New("signed with an unknown key")
	// ErrSignature: the signature is not that of the named key over the content.
	ErrSignature = errors.New("the signature does not hold")
)
