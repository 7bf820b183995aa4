package store

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/menshen-io/menshen/index/scope"
)

// Keys in Badger, format 2. T, S, U: tenant, scope and subject id; C, R: credential
// and request id; 00: one zero byte, which no id contains and which sorts before
// every byte of one; N: template number, 4 bytes, big-endian.
//
//	bytes                     value                          sealed under
//	00 "format"               format version and proof       system key
//	00 "tip"                  sequence, digest of heads      system key
//	01 T 00 S                 erasure in progress            - (Head and size of what goes)
//	02 T 00 S                 Head of the scope              - (counts only)
//	02 00                     Head of the system space       - (counts only)
//	03 01 T                   KindTenant                     system key
//	03 02 T 00 C              KindCredential (T may be empty) system key
//	03 03 T 00 S              KindScope                      system key
//	03 04 T 00 S              KindRevocation                 system key
//	03 05 T 00 S 00 R         KindRequest (T, S may be empty) system key
//	03 06 I                   KindLedger                     system key
//	03 07 N                   KindPost, N: transaction       system key
//	04 T 00 S 00              sentinel while erasing         - (empty)
//	04 T 00 S 00 11 U 00      KindSubject                    scope key
//	04 T 00 S 00 12 U 00 N    KindTemplate                   scope key
//	04 T 00 S 00 13 R         KindScopeRequest               scope key
//	04 T 00 S 00 14 I         KindErasure                    scope key
//	04 T 00 S 00 ... FF       sentinel while purging         - (empty)
//
// A sealed value is one byte of format version, then nonce, ciphertext and tag;
// its associated data is that byte and the Badger key. A key with an empty value
// is a sentinel and no record; a crash may leave one. The key of a subject ends
// with 00 so that no other key begins with it: bytes are removed by prefix.
const (
	spaceMeta    = 0x00
	spaceErasing = 0x01
	spaceHeads   = 0x02
	spaceSystem  = 0x03
	spaceScopes  = 0x04
)

var (
	keyFormat = []byte("\x00format")
	keyTip    = []byte("\x00tip")
)

// Kind says what a record is and so where it stands and which key seals it.
type Kind byte

// Kinds of the system space.
const (
	// KindTenant: Key.Ref.Tenant names it.
	KindTenant Kind = 0x01
	// KindCredential: Key.ID names it, below Key.Ref.Tenant, which may be empty.
	KindCredential Kind = 0x02
	// KindScope: the scope's settings; Key.Ref names it.
	KindScope Kind = 0x03
	// KindRevocation: the permanent record that a scope was revoked; Key.Ref
	// names it. It can be put once and never deleted.
	KindRevocation Kind = 0x04
	// KindRequest: an answered request that belongs to no scope's gallery;
	// Key.ID names it, below Key.Ref, of which either id may be empty.
	KindRequest Kind = 0x05
	// KindLedger: what is known of a ledger outside the store; Key.ID names it.
	KindLedger Kind = 0x06
	// KindPost: what the mutations of a transaction left in the outbox; Key.ID is the
	// transaction's number, 16 hexadecimal digits. The store's own. A server that
	// does not know it leaves such records where they are.
	KindPost Kind = 0x07
)

// Kinds inside a scope, Key.Ref. They go when the scope is erased.
const (
	// KindSubject: Key.ID is the subject.
	KindSubject Kind = 0x11
	// KindTemplate: Key.ID is the subject, Key.Template the template's number.
	KindTemplate Kind = 0x12
	// KindScopeRequest: an answered request of the scope; Key.ID names it.
	KindScopeRequest Kind = 0x13
	// KindErasure: an erasure in the scope whose bytes are still to be removed;
	// Key.ID names it.
	KindErasure Kind = 0x14
)

// String names the kind.
func (k Kind) String() string {
	if r, ok := rules[k]; ok {
		return r.name
	}
	return fmt.Sprintf("Kind(%d)", byte(k))
}

// inScope reports whether records of the kind live in a scope's space.
func (k Kind) inScope() bool { return k >= KindSubject }

// Key names one record. Which fields a kind uses is said at the kind; the
// others must be zero. IDs have 1 to MaxIDLen bytes, none of them zero.
type Key struct {
	Kind     Kind
	Ref      scope.Ref
	ID       string
	Template scope.TemplateID
}

// MaxIDLen is the longest Key.ID in bytes.
const MaxIDLen = 255

// rule says which parts a kind's key has, in the order in which they stand, and
// whether a zero byte ends it.
type rule struct {
	name  string
	parts []part
	ended bool
}

type part struct {
	field    byte // 't'enant, 's'cope, 'i'd, 'n'umber
	optional bool
}

var rules = map[Kind]rule{
	KindTenant:       {"tenant", []part{{'t', false}}, false},
	KindCredential:   {"credential", []part{{'t', true}, {'i', false}}, false},
	KindScope:        {"scope", []part{{'t', false}, {'s', false}}, false},
	KindRevocation:   {"revocation", []part{{'t', false}, {'s', false}}, false},
	KindRequest:      {"request", []part{{'t', true}, {'s', true}, {'i', false}}, false},
	KindLedger:       {"ledger", []part{{'i', false}}, false},
	KindPost:         {"post", []part{{'i', false}}, false},
	KindSubject:      {"subject", []part{{'i', false}}, true},
	KindTemplate:     {"template", []part{{'i', false}, {'n', false}}, false},
	KindScopeRequest: {"scope request", []part{{'i', false}}, false},
	KindErasure:      {"erasure", []part{{'i', false}}, false},
}

// String gives the key for messages: kind, scope and id.
func (k Key) String() string {
	out := k.Kind.String()
	if k.Ref != (scope.Ref{}) {
		out += " in " + k.Ref.String()
	}
	if k.ID != "" {
		out += fmt.Sprintf(" %q", k.ID)
	}
	if k.Template != 0 {
		out += fmt.Sprintf(" template %d", k.Template)
	}
	return out
}

// field gives a part of the key as it stands in Badger.
func (k Key) field(name byte) string {
	switch name {
	case 't':
		return string(k.Ref.Tenant)
	case 's':
		return string(k.Ref.Scope)
	case 'i':
		return k.ID
	}
	if k.Template == 0 {
		return ""
	}
	return string(binary.BigEndian.AppendUint32(nil, uint32(k.Template)))
}

// encode gives the Badger key of a record.
func (k Key) encode() ([]byte, error) {
	out, missing, err := k.parts()
	if err != nil {
		return nil, err
	}
	if missing != 0 {
		return nil, fmt.Errorf("%w: %s has an empty %s", ErrBadKey, k, partNames[missing])
	}
	return out, nil
}

// encodePrefix gives what the Badger keys of all records under k begin with.
// The parts that k leaves empty at its end are what the range runs over; an
// optional part that is empty ends the prefix too.
func (k Key) encodePrefix() ([]byte, error) {
	r, ok := rules[k.Kind]
	if !ok {
		return nil, fmt.Errorf("%w: unknown %s", ErrBadKey, k.Kind)
	}
	out := k.start()
	if k.Kind.inScope() {
		if err := k.Ref.Validate(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
		}
	}
	open := false
	for i, p := range r.parts {
		v := k.field(p.field)
		if v == "" {
			open = true
			continue
		}
		if open || i == len(r.parts)-1 {
			return nil, fmt.Errorf("%w: %s is no range: leave the last parts of the key empty", ErrBadKey, k)
		}
		if err := checkPart(p.field, v); err != nil {
			return nil, err
		}
		out = append(append(out, v...), 0)
	}
	return out, nil
}

// start gives the bytes before the parts: the space, and in a scope its name.
func (k Key) start() []byte {
	if k.Kind.inScope() {
		return append(scopePrefix(k.Ref), byte(k.Kind))
	}
	return []byte{spaceSystem, byte(k.Kind)}
}

var partNames = map[byte]string{'t': "tenant id", 's': "scope id", 'i': "id", 'n': "template number"}

// parts encodes the key and names the first part that is missing.
func (k Key) parts() (out []byte, missing byte, err error) {
	r, ok := rules[k.Kind]
	if !ok {
		return nil, 0, fmt.Errorf("%w: unknown %s", ErrBadKey, k.Kind)
	}
	if k.Kind.inScope() {
		if err := k.Ref.Validate(); err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrBadKey, err)
		}
	}
	out = k.start()
	used := Key{Kind: k.Kind}
	if k.Kind.inScope() {
		used.Ref = k.Ref
	}
	for i, p := range r.parts {
		v := k.field(p.field)
		if v == "" && !p.optional {
			return nil, p.field, nil
		}
		if v != "" {
			if err := checkPart(p.field, v); err != nil {
				return nil, 0, err
			}
		}
		if i > 0 {
			out = append(out, 0)
		}
		out = append(out, v...)
		used.set(p.field, v)
	}
	if r.ended {
		out = append(out, 0)
	}
	if used != k {
		return nil, 0, fmt.Errorf("%w: %s has a part that its kind does not use", ErrBadKey, k)
	}
	return out, 0, nil
}

func checkPart(field byte, v string) error {
	var err error
	switch field {
	case 't':
		err = scope.TenantID(v).Validate()
	case 's':
		err = scope.ScopeID(v).Validate()
	case 'i':
		if len(v) > MaxIDLen {
			return fmt.Errorf("%w: the id has %d bytes; at most %d are allowed", ErrBadKey, len(v), MaxIDLen)
		}
		if strings.IndexByte(v, 0) >= 0 {
			return fmt.Errorf("%w: the id holds a zero byte", ErrBadKey)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	return nil
}

func (k *Key) set(field byte, v string) {
	switch field {
	case 't':
		k.Ref.Tenant = scope.TenantID(v)
	case 's':
		k.Ref.Scope = scope.ScopeID(v)
	case 'i':
		k.ID = v
	case 'n':
		k.Template = scope.TemplateID(binary.BigEndian.Uint32([]byte(v)))
	}
}

// parseKey reverses encode.
func parseKey(b []byte) (Key, error) {
	bad := func() (Key, error) { return Key{}, fmt.Errorf("%w: not a record's key: %x", ErrBadKey, b) }
	if len(b) < 2 {
		return bad()
	}
	var k Key
	rest := string(b[1:])
	if b[0] == spaceScopes {
		tenant, more, ok := strings.Cut(rest, "\x00")
		if !ok {
			return bad()
		}
		name, more, ok := strings.Cut(more, "\x00")
		if !ok || more == "" {
			return bad()
		}
		k.Ref = scope.Ref{Tenant: scope.TenantID(tenant), Scope: scope.ScopeID(name)}
		rest = more
	} else if b[0] != spaceSystem {
		return bad()
	}
	k.Kind = Kind(rest[0])
	r, ok := rules[k.Kind]
	if !ok || k.Kind.inScope() != (b[0] == spaceScopes) {
		return bad()
	}
	rest = rest[1:]
	if r.ended {
		if rest, ok = strings.CutSuffix(rest, "\x00"); !ok {
			return bad()
		}
	}
	for i, p := range r.parts {
		v := rest
		if p.field == 'n' {
			if len(v) != 4 {
				return bad()
			}
		} else if i < len(r.parts)-1 {
			if v, rest, ok = strings.Cut(rest, "\x00"); !ok {
				return bad()
			}
		}
		k.set(p.field, v)
	}
	if again, err := k.encode(); err != nil || string(again) != string(b) {
		return bad()
	}
	return k, nil
}

// scopePrefix begins every key of a scope's space and no key of another's.
func scopePrefix(ref scope.Ref) []byte {
	return append(refKey(spaceScopes, ref), 0)
}

// refKey is space, tenant, 00, scope.
func refKey(space byte, ref scope.Ref) []byte {
	out := make([]byte, 0, 4+len(ref.Tenant)+len(ref.Scope)+64)
	out = append(out, space)
	out = append(out, ref.Tenant...)
	out = append(out, 0)
	return append(out, ref.Scope...)
}

// headKey is where the Head of a scope stands, of the system space for the zero Ref.
func headKey(ref scope.Ref) []byte { return refKey(spaceHeads, ref) }

// parseRefKey reverses refKey; the zero Ref is allowed.
func parseRefKey(b []byte) (scope.Ref, error) {
	tenant, name, ok := strings.Cut(string(b[1:]), "\x00")
	ref := scope.Ref{Tenant: scope.TenantID(tenant), Scope: scope.ScopeID(name)}
	if !ok || ref != (scope.Ref{}) && ref.Validate() != nil {
		return scope.Ref{}, fmt.Errorf("%w: not the key of a scope: %x", ErrBadKey, b)
	}
	return ref, nil
}
