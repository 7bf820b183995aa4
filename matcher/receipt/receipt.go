package receipt

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/signing"
)

// Type names the document's meaning and version.
const Type = "menshen.receipt.v1"

// ErrInvalid: the content is not that of a finished erasure.
var ErrInvalid = errors.New("not a valid receipt")

// Kind says what was erased.
type Kind string

// The kinds.
const (
	Scope    Kind = "SCOPE"
	Subject  Kind = "SUBJECT"
	Template Kind = "TEMPLATE"
	// Subjects are several of one scope, which were due together, or one whose
	// scope was revoked before its bytes were removed. The receipt counts
	// and names none.
	Subjects Kind = "SUBJECTS"
)

// Cause says why it was erased.
type Cause string

// The causes.
const (
	Revoked   Cause = "REVOKED"   // somebody revoked or deleted it
	Withdrawn Cause = "WITHDRAWN" // consent was withdrawn
	Expired   Cause = "EXPIRED"   // its time was over
	Used      Cause = "USED"      // it was for a single match, which was given
)

// Receipt is the statement. Field order is the order in the file: changing it
// changes the format.
type Receipt struct {
	// ID is the receipt's resource name, at most 200 characters of printable
	// ASCII.
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Tenant and Scope are always there; Subject for subjects and templates;
	// Template, from 1, for templates.
	Tenant      scope.TenantID   `json:"tenant"`
	Scope       scope.ScopeID    `json:"scope"`
	Subject     scope.SubjectID  `json:"subject,omitempty"`
	Template    scope.TemplateID `json:"template,omitempty"`
	Cause       Cause            `json:"cause"`
	RequestedBy Requester        `json:"requested_by"`
	Times       Times            `json:"times"`
	// Epoch is the scope's epoch of the erasure.
	Epoch     scope.Epoch `json:"epoch"`
	Destroyed Destroyed   `json:"destroyed"`
	// Scan is what the search of the files found; nil where none was made.
	Scan *Scan `json:"scan,omitempty"`
	// ServerVersion is the version of the server that erased.
	ServerVersion string `json:"server_version"`
}

// Requester is who asked. For an expiry it is the service itself: the
// credential is then "menshen" and the role "SERVICE".
type Requester struct {
	Credential string `json:"credential"`
	Role       string `json:"role"`
}

// Times are those of the steps, in UTC, none before the one above it.
type Times struct {
	Requested time.Time `json:"requested"`
	// Fenced: from here on no answer MATCH left the service.
	Fenced time.Time `json:"fenced"`
	// KeyDestroyed: the scope's key was out of the keyring. Scopes only.
	KeyDestroyed time.Time `json:"key_destroyed,omitzero"`
	// Erased: the records were out of the database.
	Erased time.Time `json:"erased"`
	// Verified: the files were searched. There when Scan is.
	Verified time.Time `json:"verified,omitzero"`
}

// Destroyed counts what there was.
type Destroyed struct {
	Subjects  uint64 `json:"subjects"`
	Templates uint64 `json:"templates"`
	Records   uint64 `json:"records"`
	Bytes     uint64 `json:"bytes"`
	// Digest is the SHA-256, in hexadecimal, over what the store knew of the
	// destroyed records: their number and the digest of all of them as they were
	// stored, sealed. For a scope those are all its records at its end.
	Digest string `json:"digest"`
}

// Scan is the result of searching the files for what was erased. Left is stated
// although it must be 0, because that is what the reader asks.
type Scan struct {
	Files uint64 `json:"files"`
	Bytes uint64 `json:"bytes"`
	Left  uint64 `json:"bytes_left"`
}

// Sign states the erasure. Times are written in UTC. Errors: ErrInvalid with
// every violation; signing.ErrWiped.
func Sign(key *signing.Key, r Receipt) ([]byte, error) {
	t := &r.Times
	for _, at := range []*time.Time{&t.Requested, &t.Fenced, &t.KeyDestroyed, &t.Erased, &t.Verified} {
		*at = at.Round(0).UTC()
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	return signing.Sign(key, Type, r)
}

// Parse reads and verifies a receipt; nothing but the file and the public keys
// is needed. It returns the key that signed. Errors: those of signing.Parse, and
// ErrInvalid for a statement that the signer should not have signed.
func Parse(doc []byte, keys signing.PublicKeys) (Receipt, signing.KeyID, error) {
	var r Receipt
	id, err := signing.Parse(doc, Type, keys, &r)
	if err == nil {
		err = r.validate()
	}
	if err != nil {
		return Receipt{}, "", err
	}
	return r, id, nil
}

// validate reports every violation at once.
func (r *Receipt) validate() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(printable(r.ID, 200), "id: 1 to 200 characters of printable ASCII")
	want((scope.Ref{Tenant: r.Tenant, Scope: r.Scope}).Validate() == nil, "tenant and scope must be ids")
	switch r.Kind {
	case Scope:
		want(r.Subject == "" && r.Template == 0, "the receipt of a scope names no subject and no template")
		want(!r.Times.KeyDestroyed.IsZero(), "times.key_destroyed: a scope is erased by destroying its key")
		want(r.Scan != nil, "scan: the erasure of a scope is proved by searching the files")
	case Subject, Template:
		want(r.Subject.Validate() == nil, "subject must be an id")
		want((r.Template != 0) == (r.Kind == Template), "template: there for a template and for nothing else")
		want(r.Times.KeyDestroyed.IsZero(), "times.key_destroyed: only scopes have a key")
	case Subjects:
		want(r.Subject == "" && r.Template == 0, "the receipt of many subjects names none")
		want(r.Times.KeyDestroyed.IsZero(), "times.key_destroyed: only scopes have a key")
		want(r.Scan != nil, "scan: the erasure is proved by searching the files")
	default:
		want(false, "kind: one of SCOPE, SUBJECT, TEMPLATE, SUBJECTS")
	}
	want(r.Cause == Revoked || r.Cause == Withdrawn || r.Cause == Expired || r.Cause == Used, "cause: one of REVOKED, WITHDRAWN, EXPIRED, USED")
	want(printable(r.RequestedBy.Credential, 64), "requested_by.credential: 1 to 64 characters of printable ASCII")
	want(printable(r.RequestedBy.Role, 64), "requested_by.role: 1 to 64 characters of printable ASCII")
	want(printable(r.ServerVersion, 100), "server_version: 1 to 100 characters of printable ASCII")
	digest, err := hex.DecodeString(r.Destroyed.Digest)
	want(err == nil && len(digest) == 32 && hex.EncodeToString(digest) == r.Destroyed.Digest, "destroyed.digest: 64 hexadecimal digits")
	want((r.Scan == nil) == r.Times.Verified.IsZero(), "scan and times.verified belong together")
	want(r.Scan == nil || r.Scan.Left == 0, "scan.bytes_left: the erasure is not finished; erase again")
	r.Times.check(want)
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", ErrInvalid, errors.Join(errs...))
	}
	return nil
}

func (t *Times) check(want func(bool, string, ...any)) {
	var last time.Time
	for _, step := range []struct {
		name     string
		at       time.Time
		optional bool
	}{
		{"requested", t.Requested, false}, {"fenced", t.Fenced, false},
		{"key_destroyed", t.KeyDestroyed, true}, {"erased", t.Erased, false}, {"verified", t.Verified, true},
	} {
		if step.at.IsZero() {
			want(step.optional, "times.%s is missing", step.name)
			continue
		}
		want(step.at.Year() > 0 && step.at.Year() <= 9999, "times.%s: outside the years that can be written", step.name)
		want(!step.at.Before(last), "times.%s lies before the step that comes first", step.name)
		last = step.at
	}
}

// printable reports whether s has 1 to most characters of printable ASCII.
func printable(s string, most int) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= most
}
