package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// issuer makes certificates; the zero issuer makes authorities and self-signed
// ones.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// gateID is the SPIFFE ID in gate.pem.
const gateID = "spiffe://acme.example/hall-a/gate-1"

// writeCertificates makes the folder and in it ca.pem, which signed server, client
// (a subject only), gate (gateID), two (two IDs), server-only (not for clients)
// and expired; self, which signed itself; and other-ca.pem, which signed stranger
// with gate's names.
func writeCertificates(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := issuer{}.authority(dir, "ca")
	if err != nil {
		return err
	}
	other, err := issuer{}.authority(dir, "other-ca")
	if err != nil {
		return err
	}
	id, err := url.Parse(gateID)
	if err != nil {
		return err
	}
	admin := &url.URL{Scheme: "spiffe", Host: "acme.example", Path: "/admin"}
	for _, one := range []struct {
		by     issuer
		name   string
		change func(*x509.Certificate)
	}{
		{ca, "server", nil},
		{ca, "client", nil},
		{ca, "gate", func(c *x509.Certificate) { c.URIs = []*url.URL{id} }},
		{ca, "two", func(c *x509.Certificate) { c.URIs = []*url.URL{id, admin} }},
		{ca, "server-only", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }},
		{ca, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }},
		{issuer{}, "self", func(c *x509.Certificate) { c.URIs = []*url.URL{id} }},
		{other, "stranger", func(c *x509.Certificate) { c.URIs = []*url.URL{id} }},
	} {
		if _, err := one.by.issue(dir, one.name, one.change); err != nil {
			return err
		}
	}
	return nil
}

// authority writes NAME.pem and NAME.key of an authority.
func (i issuer) authority(dir, name string) (issuer, error) {
	return i.issue(dir, name, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	})
}

// issue writes NAME.pem and NAME.key, for servers and clients at 127.0.0.1 and
// gate.example, good for an hour, with the subject CN=NAME,O=Acme.
func (i issuer) issue(dir, name string, change func(*x509.Certificate)) (issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return issuer{}, err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: []string{"Acme"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"gate.example"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(cert)
	}
	if i.cert == nil {
		i = issuer{cert, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, i.cert, &key.PublicKey, i.key)
	if err != nil {
		return issuer{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return issuer{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return issuer{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		return issuer{}, err
	}
	cert, err = x509.ParseCertificate(der)
	return issuer{cert, key}, err
}
