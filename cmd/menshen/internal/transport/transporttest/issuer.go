// Package transporttest issues certificates to tests: authorities, what they sign,
// and what a server must refuse. It is for tests alone, and keeps no secret.
package transporttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// GateID is the SPIFFE ID of the gate in WriteAll's certificates.
const GateID = "spiffe://acme.example/hall-a/gate-1"

// Issuer is a certificate with its key, which may sign others. The zero Issuer
// makes what signs itself.
type Issuer struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// Authority makes an authority of that name, signed by i.
func (i Issuer) Authority(name string, change ...func(*x509.Certificate)) (Issuer, error) {
	return i.Issue(name, append([]func(*x509.Certificate){func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	}}, change...)...)
}

// Issue makes a certificate for servers and clients at 127.0.0.1 and gate.example
// with the subject CN=name,O=Acme, good since an hour and for another one.
func (i Issuer) Issue(name string, change ...func(*x509.Certificate)) (Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Issuer{}, err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: []string{"Acme"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"gate.example"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, f := range change {
		f(cert)
	}
	if i.Cert == nil {
		i = Issuer{cert, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, i.Cert, &key.PublicKey, i.Key)
	if err != nil {
		return Issuer{}, err
	}
	cert, err = x509.ParseCertificate(der)
	return Issuer{cert, key}, err
}

// PEM is the certificate.
func (i Issuer) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Cert.Raw})
}

// Write writes NAME.pem and NAME.key into a folder.
func (i Issuer) Write(dir, name string) error {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(i.Key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, name+".pem"), i.PEM(), 0o644),
		os.WriteFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600),
	)
}

// TLS is the certificate as crypto/tls takes it, with the chain above it.
func (i Issuer) TLS(above ...Issuer) tls.Certificate {
	out := tls.Certificate{Certificate: [][]byte{i.Cert.Raw}, PrivateKey: i.Key, Leaf: i.Cert}
	for _, a := range above {
		out.Certificate = append(out.Certificate, a.Cert.Raw)
	}
	return out
}

// URIs gives a certificate URIs, which must be well formed.
func URIs(texts ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, text := range texts {
			u, err := url.Parse(text)
			if err != nil {
				panic(fmt.Sprintf("transporttest: %v", err))
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

// WriteAll makes the folder and in it ca.pem, which signed server, client (a
// subject only), gate (GateID), two (two IDs), server-only (not for clients) and
// expired; self, which signed itself with gate's ID; and other-ca.pem, which signed
// stranger with gate's ID. All have keys.
func WriteAll(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := Issuer{}.Authority("ca")
	if err != nil {
		return err
	}
	other, err := Issuer{}.Authority("other-ca")
	if err != nil {
		return err
	}
	if err := errors.Join(ca.Write(dir, "ca"), other.Write(dir, "other-ca")); err != nil {
		return err
	}
	for _, one := range []struct {
		by     Issuer
		name   string
		change func(*x509.Certificate)
	}{
		{ca, "server", func(*x509.Certificate) {}},
		{ca, "client", func(*x509.Certificate) {}},
		{ca, "gate", URIs(GateID)},
		{ca, "two", URIs(GateID, "spiffe://acme.example/admin")},
		{ca, "server-only", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }},
		{ca, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }},
		{Issuer{}, "self", URIs(GateID)},
		{other, "stranger", URIs(GateID)},
	} {
		made, err := one.by.Issue(one.name, one.change)
		if err != nil {
			return err
		}
		if err := made.Write(dir, one.name); err != nil {
			return err
		}
	}
	return nil
}
