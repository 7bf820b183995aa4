package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
)

// transport chooses plain text or TLS, and tells which.
func (o *Options) transport(host string) (credentials.TransportCredentials, bool, error) {
	local := config.ReachOf(host) == config.Loopback
	wantTLS := o.TLS || o.TLSCA != "" || o.TLSCert != "" || o.ServerName != ""
	switch {
	case o.Insecure && wantTLS:
		return nil, false, fmt.Errorf("%w: --insecure and TLS options exclude each other", ErrUsage)
	case o.Insecure && !local:
		return nil, false, fmt.Errorf("%w: --insecure would send the API key and faces to %s in plain text; it is for this machine only: use --tls-ca FILE or --tls", ErrUsage, host)
	case (o.TLSCert == "") != (o.TLSKey == ""):
		return nil, false, fmt.Errorf("%w: --tls-cert and --tls-key belong together", ErrUsage)
	case local && !wantTLS:
		return insecure.NewCredentials(), true, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: o.ServerName}
	if o.TLSCA != "" {
		pem, err := os.ReadFile(o.TLSCA)
		if err != nil {
			return nil, false, fmt.Errorf("%w: --tls-ca: %v", ErrUsage, err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, false, fmt.Errorf("%w: --tls-ca: %s holds no PEM certificate", ErrUsage, o.TLSCA)
		}
	}
	shown := &tls.Certificate{} // none
	if o.TLSCert != "" {
		pair, err := o.clientCertificate()
		if err != nil {
			return nil, false, err
		}
		shown = &pair
	}
	return newAttentive(cfg, shown), false, nil
}

// clientCertificate reads the certificate and its key, and refuses what the
// server is bound to refuse.
func (o *Options) clientCertificate() (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey)
	if err != nil {
		return pair, fmt.Errorf("%w: --tls-cert and --tls-key: %v", ErrUsage, err)
	}
	switch now, leaf := time.Now(), pair.Leaf; {
	case !now.Before(leaf.NotAfter):
		return pair, fmt.Errorf("%w: --tls-cert %s expired at %s; get a new one", ErrUsage, o.TLSCert, leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return pair, fmt.Errorf("%w: --tls-cert %s is not valid before %s; check the clock of this machine", ErrUsage, o.TLSCert, leaf.NotBefore.Format(time.RFC3339))
	}
	return pair, nil
}

// nextForTLS says what to do about a connection that was not made, from the text
// that is left of the cause in a status.
func nextForTLS(text string) string {
	for _, mistake := range []struct{ texts, next string }{
		{"first record does not look like a TLS handshake", "the server speaks plain text; leave the TLS options out"},
		{"protocol version not supported", "the server takes TLS 1.3 only, or what stands between does not speak it"},
		{"certificate required", "the server asks for a client certificate: give --tls-cert and --tls-key"},
		{"expired certificate|certificate expired", "the client certificate has expired: give a new one with --tls-cert and --tls-key"},
		{"unknown certificate authority|bad certificate|unsupported certificate|unknown certificate", "the server does not accept the client certificate: give one of an authority that it knows (its --tls-client-ca), made for client authentication"},
		{"server preface|malformed HTTP response", "what listens there does not speak plain gRPC; if the server uses TLS, give --tls-ca FILE"},
		{"certificate signed by unknown authority", "give the authority that signed the server's certificate with --tls-ca FILE; without it the system's authorities count"},
		{"certificate has expired or is not yet valid", "the server's certificate has expired, or a clock is wrong: its operator renews it, and compares \"date\" on both machines"},
		{"certificate is valid for|certificate is not valid for any names|doesn't contain any IP SANs|legacy Common Name", "the server's certificate is for another name: call it by a name in the certificate with --server, or say which one to expect with --tls-server-name"},
		{"incompatible key usage|x509:", "the server's certificate is not acceptable: check it against --tls-ca and --tls-server-name"},
		{"broken pipe|connection reset", "the server closed the connection; if it asks for client certificates, give --tls-cert and --tls-key"},
	} {
		for one := range strings.SplitSeq(mistake.texts, "|") {
			if strings.Contains(text, one) {
				if one == "connection reset" && strings.Contains(text, "error reading from server") {
					return "" // it was made, and broke
				}
				return mistake.next
			}
		}
	}
	return ""
}
