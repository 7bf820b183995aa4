package transport

import (
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/menshen-io/menshen/matcher/auth"
)

// peer is the AuthInfo of a connection whose client showed a certificate.
type peer struct {
	credentials.TLSInfo
	security *Security
	identity auth.Identity
	unclear  error // why the identity is not known
	standing atomic.Pointer[standing]
	ended    bool // at the last sweep; of the sweeper alone
}

// standing is how a certificate stood with the authorities of one generation.
type standing struct {
	generation uint64
	until      time.Time // zero: no chain leads to an authority
}

func newPeer(s *Security, info credentials.TLSInfo) *peer {
	p := &peer{TLSInfo: info, security: s}
	p.identity, p.unclear = auth.IdentityOf(info.State.PeerCertificates[0])
	return p
}

// Certificate returns whom the certificate names while it is good:
// auth.ErrCertificateEnded when it, or the chain above it, has expired or does
// not lead to a present authority; auth.ErrCertificateNames. It costs two atomic
// loads and a look at the clock, but for the first time after a change of the
// files, when the chain is verified again.
func (p *peer) Certificate() (auth.Identity, error) {
	present, held := p.security.state.Load(), p.standing.Load()
	if held == nil || held.generation != present.generation {
		held = &standing{generation: present.generation, until: p.verify(present)}
		p.standing.Store(held)
	}
	if !p.security.opt.Clock().Before(held.until) {
		return "", auth.ErrCertificateEnded
	}
	return p.identity, p.unclear
}

// verify tells until when a chain leads to a present authority.
func (p *peer) verify(present *state) (until time.Time) {
	if present.config.ClientCAs == nil {
		return time.Time{}
	}
	shown := p.State.PeerCertificates
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	chains, err := shown[0].Verify(x509.VerifyOptions{
		Roots: present.config.ClientCAs, Intermediates: between, CurrentTime: p.security.opt.Clock(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return time.Time{}
	}
	for _, chain := range chains {
		ends := chain[0].NotAfter
		for _, c := range chain[1:] {
			if c.NotAfter.Before(ends) {
				ends = c.NotAfter
			}
		}
		if ends.After(until) {
			until = ends
		}
	}
	return until
}

// attend looks after a connection until it is closed.
func (s *Security) attend(p *peer, conn net.Conn) net.Conn {
	s.peersMu.Lock()
	defer s.peersMu.Unlock()
	s.peers[p] = conn
	return &attended{Conn: conn, leave: sync.OnceFunc(func() {
		s.peersMu.Lock()
		defer s.peersMu.Unlock()
		delete(s.peers, p)
	})}
}

// attended is a connection that says when it is closed.
type attended struct {
	net.Conn
	leave func()
}

// Close closes the connection.
func (c *attended) Close() error {
	c.leave()
	return c.Conn.Close()
}

// sweep closes connections whose certificates had ended at the sweep before:
// their streams have been told why by now.
func (s *Security) sweep() {
	var over []net.Conn
	s.peersMu.Lock()
	for p, conn := range s.peers {
		if p.good() {
			p.ended = false
		} else if p.ended {
			over = append(over, conn)
		} else {
			p.ended = true
		}
	}
	s.peersMu.Unlock()
	for _, conn := range over {
		s.opt.Logger.Info("connection closed: its client certificate has expired or its authority was removed", "from", conn.RemoteAddr().String())
		conn.Close()
	}
}

func (p *peer) good() bool {
	_, err := p.Certificate()
	return !errors.Is(err, auth.ErrCertificateEnded)
}
