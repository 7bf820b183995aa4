package auth

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
)

// Identity is the name that a client certificate gives its holder, in its one
// canonical spelling: a SPIFFE ID such as "spiffe://acme.example/hall-a/gate-1",
// or the certificate's subject as RFC 2253 writes it, "CN=gate-1,O=Acme". Two
// identities are the same if and only if they are equal; there are no wildcards.
// The empty Identity is nobody's.
type Identity string

// maxIdentity is the longest identity in bytes; the SPIFFE specification's bound
// on IDs.
const maxIdentity = 2048

// ParseIdentity reads an identity as people write it: spaces around the commas
// of a subject, the order within one of its parts and the case of attribute
// names do not matter. Its errors say what would be right.
func ParseIdentity(text string) (Identity, error) {
	if len(text) > maxIdentity {
		return "", fmt.Errorf("has %d bytes; at most %d are allowed", len(text), maxIdentity)
	}
	if isSPIFFE(text) {
		return parseSPIFFE(text)
	}
	name, err := parseSubject(text)
	if err != nil {
		return "", err
	}
	return name.identity()
}

// IdentityOf reads the identity of a client's certificate, which the transport
// has verified. A SPIFFE ID goes before the subject; a certificate that has
// neither gives the empty Identity. ErrCertificateNames: the certificate is an
// authority's, or it cannot be told whom it names, because it holds several URIs
// or a malformed ID or subject.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	id, err := identityOf(cert)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrCertificateNames, err)
	}
	return id, nil
}

func identityOf(cert *x509.Certificate) (Identity, error) {
	if cert.IsCA || cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return "", errors.New("it is an authority's, and signs others; a client needs one of its own")
	}
	uris, err := urisOf(cert)
	switch {
	case err != nil:
		return "", err
	case len(uris) > 1:
		return "", fmt.Errorf("it holds %d URIs; a client's holds one", len(uris))
	case len(uris) == 1 && isSPIFFE(uris[0]):
		if id, err := parseSPIFFE(uris[0]); err == nil {
			return id, nil
		}
		return "", fmt.Errorf("its URI %.100q is no SPIFFE ID of a workload", uris[0])
	}
	name, err := readSubject(cert.RawSubject)
	if err != nil || len(name) == 0 {
		return "", err
	}
	return name.identity()
}

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// tagURI is that of uniformResourceIdentifier among the general names (RFC 5280).
const tagURI = 6

// urisOf reads the URIs of a certificate letter by letter: crypto/x509 gives them
// parsed, and parsing drops what a SPIFFE ID must not have.
func urisOf(cert *x509.Certificate) (uris []string, err error) {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &names); err != nil || len(rest) > 0 {
			return nil, errors.New("its alternative names cannot be read")
		}
		for _, n := range names {
			if n.Class == asn1.ClassContextSpecific && n.Tag == tagURI {
				uris = append(uris, string(n.Bytes))
			}
		}
	}
	return uris, nil
}

const schemeSPIFFE = "spiffe://"

// isSPIFFE reports whether a text means to be a SPIFFE ID, well formed or not.
func isSPIFFE(text string) bool {
	return len(text) >= len("spiffe:") && strings.EqualFold(text[:len("spiffe:")], "spiffe:")
}

// maxTrustDomain is the SPIFFE specification's bound.
const maxTrustDomain = 255

// parseSPIFFE checks the ID of a workload by the SPIFFE-ID specification: no
// user, port, query, fragment or percent-encoding, no dot segments, and a path,
// because an ID without one is a trust domain's own and not a workload's.
func parseSPIFFE(text string) (Identity, error) {
	rest, ok := strings.CutPrefix(text, schemeSPIFFE)
	if !ok || len(text) > maxIdentity {
		return "", errors.New("a SPIFFE ID reads spiffe://TRUST-DOMAIN/PATH, at most 2048 letters")
	}
	domain, path, ok := strings.Cut(rest, "/")
	if domain == "" || len(domain) > maxTrustDomain || !only(domain, "abcdefghijklmnopqrstuvwxyz0123456789.-_") {
		return "", errors.New("the trust domain of a SPIFFE ID is 1 to 255 of a-z, 0-9, '.', '-' and '_', without user or port")
	}
	if !ok {
		return "", errors.New("a SPIFFE ID without a path names a trust domain, not a client: add /PATH")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." ||
			!only(segment, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") {
			return "", errors.New("each part of a SPIFFE ID's path is one or more of a-z, A-Z, 0-9, '.', '-' and '_', and neither '.' nor '..'")
		}
	}
	return Identity(text), nil
}

// only reports whether text consists of letters of the set.
func only(text, set string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(set, r) })
}
