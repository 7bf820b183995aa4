package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"google.golang.org/grpc/credentials"
)

// verdictTime is how long a server may take to say what it thinks of a client
// certificate, or of its absence. In TLS 1.3 that comes after the handshake; who
// writes before is told "broken pipe" instead. gRPC servers speak first, at once.
const verdictTime = 2 * time.Second

// attentive is TLS that waits for the server's verdict where it asked for a client
// certificate.
type attentive struct {
	credentials.TransportCredentials
	config *tls.Config
	cert   *tls.Certificate // never nil; empty for none
}

// newAttentive makes TLS with a client certificate; the empty one shows none.
func newAttentive(cfg *tls.Config, cert *tls.Certificate) credentials.TransportCredentials {
	return attentive{credentials.NewTLS(cfg), cfg, cert}
}

// Clone returns itself: nothing of it changes.
func (a attentive) Clone() credentials.TransportCredentials { return a }

// ClientHandshake shakes hands, and fails where the server refuses the client's
// certificate afterwards. The certificate is shown whatever authorities the server
// names, so that the server says what is wrong with it.
func (a attentive) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	asked := false
	cfg := a.config.Clone()
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return a.cert, nil
	}
	conn, info, err := credentials.NewTLS(cfg).ClientHandshake(ctx, authority, raw)
	if err != nil || !asked {
		return conn, info, err
	}
	var first [1]byte
	if err = conn.SetReadDeadline(time.Now().Add(verdictTime)); err == nil {
		var n int
		n, err = conn.Read(first[:])
		conn = &begun{conn, first[:n]}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil // it says nothing: then it has nothing against it
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, info, nil
}

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	head []byte
}

// Read gives what was read already, then what comes.
func (c *begun) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
