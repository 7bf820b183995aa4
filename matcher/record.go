package matcher

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/receipt"
)

// Records are JSON: they are few bytes beside a template, they are sealed by
// the store, and a format that tolerates new fields keeps old data readable.
// The template code itself is the binary form of index/code.

// scopeRecord is a scope in the store's system space; it outlives the scope's
// data, so that the id is never used twice.
type scopeRecord struct {
	Settings Settings    `json:"settings"`
	State    scope.State `json:"state"`
	ModelID  string      `json:"model_id"`
	Dim      int         `json:"dim"`
	Epoch    scope.Epoch `json:"epoch"`
	Created  time.Time   `json:"created"`
	Updated  time.Time   `json:"updated"`
	// Erasure is set once the scope is revoked.
	Erasure *erasureRecord `json:"erasure,omitempty"`
}

// erasureRecord is how far the erasure of a revoked scope has come.
type erasureRecord struct {
	Subjects  int `json:"subjects"`
	Templates int `json:"templates"`
	// Statement is the receipt that is to be written, once the key is destroyed
	// and the records are removed.
	Statement *receipt.Receipt `json:"statement,omitempty"`
	Done      bool             `json:"done"` // all of it, and the receipt is in the ledger
}

// revocationRecord is the permanent record that a scope's purpose ended. It is
// written once, before anything is destroyed.
type revocationRecord struct {
	Time  time.Time   `json:"time"` // when the fence went up
	By    requester   `json:"by"`
	Epoch scope.Epoch `json:"epoch"`
	// What the scope held then, for a start that cannot count it any more.
	Subjects  int `json:"subjects"`
	Templates int `json:"templates"`
}

// subjectRecord is a subject in the scope's own space. Templates lists what is
// stored under the subject; the codes are records of their own.
type subjectRecord struct {
	Consent   Consent          `json:"consent"`
	Created   time.Time        `json:"created"`
	Expires   time.Time        `json:"expires"`
	Next      scope.TemplateID `json:"next"` // the number of the next template
	Templates []templateEntry  `json:"templates"`
}

type templateEntry struct {
	ID      scope.TemplateID `json:"id"`
	Created time.Time        `json:"created"`
}

// encode marshals a record. The types above always marshal.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("matcher: marshal %T: %v", v, err))
	}
	return b
}

func decodeRecord[T any](b []byte) (T, error) {
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("%w: a %T does not parse", ErrScopeDamaged, v)
	}
	return v, nil
}

func scopeKey(ref scope.Ref) store.Key { return store.Key{Kind: store.KindScope, Ref: ref} }

func revocationKey(ref scope.Ref) store.Key { return store.Key{Kind: store.KindRevocation, Ref: ref} }

func subjectKey(ref scope.Ref, id scope.SubjectID) store.Key {
	return store.Key{Kind: store.KindSubject, Ref: ref, ID: string(id)}
}

func templateKey(ref scope.Ref, id scope.SubjectID, n scope.TemplateID) store.Key {
	return store.Key{Kind: store.KindTemplate, Ref: ref, ID: string(id), Template: n}
}
