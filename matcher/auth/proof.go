package auth

import "fmt"

// Proof is what the callers of a server must show.
type Proof uint8

// The proofs.
const (
	// ByKey goes by API keys. Client certificates do not count, and credentials
	// that are bound to one are not accepted.
	ByKey Proof = 1 + iota
	// ByCertificate goes by client certificates. An API key that is sent as well
	// must be of the same credential.
	ByCertificate
	// ByEither goes by the API key of calls that send one, and by the client
	// certificate of the others.
	ByEither
	// ByBoth wants an API key and a client certificate: the credential's own where
	// it is bound to one, any that names no credential where it is not. A new
	// credential that is bound to a certificate gets an API key too.
	ByBoth
)

// String gives the word of the setting tls.client_auth.
func (p Proof) String() string {
	switch p {
	case ByKey:
		return "key"
	case ByCertificate:
		return "certificate"
	case ByEither:
		return "either"
	case ByBoth:
		return "both"
	}
	return fmt.Sprintf("Proof(%d)", uint8(p))
}

// accepts reports whether a credential can be shown as the proof demands.
func (p Proof) accepts(e *entry) bool {
	switch p {
	case ByKey:
		return e.ClientCertificate == ""
	case ByCertificate:
		return e.ClientCertificate != ""
	case ByBoth:
		return e.hasKey
	}
	return true
}

// Shown is what a call shows.
type Shown struct {
	// HasKey tells whether the call sends an API key, and Key what it is.
	HasKey bool
	Key    string
	// Certificate is the identity in the client certificate of the connection,
	// which the transport has verified. Empty where there is none or where it
	// names nobody.
	Certificate Identity
}

// Caller tells who calls, by what the call shows and the server demands. Key and
// certificate must not point to different credentials, and a credential that is
// bound to a certificate is nobody's without it: a stolen key does not serve, nor
// does the key of one tenant's gate beside the certificate of another's.
// ErrUnauthenticated, ErrKeyNeeded, ErrCertificateNeeded, ErrCertificateUnknown,
// ErrOtherCredential.
func (a *Authority) Caller(s Shown) (Caller, error) {
	var bound *entry
	if a.proof != ByKey && s.Certificate != "" {
		bound = a.holder(s.Certificate)
	}
	if !s.HasKey || a.proof == ByCertificate && bound == nil {
		return a.byCertificate(s, bound)
	}
	e, err := a.byKey(s.Key)
	if err != nil {
		return Caller{}, err
	}
	if e != bound && (bound != nil || e.ClientCertificate != "") {
		return Caller{}, ErrOtherCredential
	}
	return e.caller(), nil
}

// byCertificate is Caller for a call without a key, or whose key does not count.
func (a *Authority) byCertificate(s Shown, bound *entry) (Caller, error) {
	switch {
	case a.proof == ByKey || a.proof == ByBoth:
		return Caller{}, ErrKeyNeeded
	case s.Certificate == "":
		return Caller{}, ErrCertificateNeeded
	case bound == nil:
		return Caller{}, fmt.Errorf("%w: nobody live is bound to %q", ErrCertificateUnknown, s.Certificate)
	}
	return bound.caller(), nil
}

// Authenticate tells whose key this is, for a credential that is an API key
// alone. Every refusal is ErrUnauthenticated and takes the same path: a malformed
// key and an unknown id are compared with a digest that no secret has.
func (a *Authority) Authenticate(key string) (Caller, error) {
	e, err := a.byKey(key)
	if err != nil || e.ClientCertificate != "" {
		return Caller{}, ErrUnauthenticated
	}
	return e.caller(), nil
}

func (a *Authority) byKey(key string) (*entry, error) {
	id, d, ok := parseKey(key)
	e := a.entry(id)
	known := e != nil && e.hasKey
	if !known {
		e = a.nobody
	}
	match := e.secret.equal(d)
	if !ok || !known || !match || !e.live(a.now()) {
		return nil, ErrUnauthenticated
	}
	return e, nil
}

// holder is the live credential that is bound to a certificate, or nil.
func (a *Authority) holder(id Identity) *entry {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if e := a.bound[id]; e != nil && e.live(a.now()) {
		return e
	}
	return nil
}

// bind notes what a new or changed credential is bound to; mu is held, or no
// other goroutine is there. Of several that were never revoked at most one has
// not expired, the last that was made: the others were when it was.
func (a *Authority) bind(e *entry) {
	if e.ClientCertificate == "" {
		return
	}
	was := a.bound[e.ClientCertificate]
	switch {
	case e.RevokeTime.IsZero() && (was == nil || !e.CreateTime.Before(was.CreateTime)):
		a.bound[e.ClientCertificate] = e
	case !e.RevokeTime.IsZero() && was != nil && was.ID == e.ID:
		delete(a.bound, e.ClientCertificate)
	}
}
