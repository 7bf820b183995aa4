// Package transport secures the connections of the server: TLS 1.3, and client
// certificates where the server asks for them.
//
// It promises: the certificate, its key and the clients' authorities are read
// again while the server runs, by content every few seconds and at once on
// Reload; files that cannot be used are logged and change nothing; what is near
// its end is warned about. A client certificate is verified at the handshake, and
// again when the authorities have changed: one that expires or whose authority is
// removed is refused at the next call and the next message of a stream, and its
// connection is closed soon after. Sessions are not resumed, since a ticket would
// carry a verification of yesterday.
//
// It does not look for revoked certificates (CRL, OCSP): revoke the credential,
// use certificates that end soon, or replace the authority.
package transport

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/menshen-io/menshen/matcher/auth"
)

// ErrFiles: the files of transport security cannot be used. The error names the
// flag and the file.
var ErrFiles = errors.New("TLS")

// Options say what secures the connections. Logger is required.
type Options struct {
	// Cert, Key and ClientCA are PEM files. ClientCA is empty where no client
	// certificates are asked for.
	Cert, Key, ClientCA string
	// Proof is what callers must show; it decides whether a client certificate is
	// demanded, accepted or not asked for.
	Proof  auth.Proof
	Logger *slog.Logger
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
}

const (
	// pollEvery is how often the files are looked at. A change counts when it was
	// seen twice, so that files which are still being written do not.
	pollEvery = 2 * time.Second
	// retryEvery is how often files that could not be used are tried again: a
	// certificate that was not valid yet may be by now.
	retryEvery = time.Minute
)

// Security holds what secures connections at the moment. Safe for concurrent use.
type Security struct {
	opt   Options
	state atomic.Pointer[state]
	inner credentials.TransportCredentials
	noise noise

	mu      sync.Mutex // of what follows: one look at the files at a time
	seen    fingerprint
	refused fingerprint // could not be used
	retry   time.Time   // when refused is tried again
	quiet   time.Time   // until when nothing is said about ends

	peersMu sync.Mutex
	peers   map[*peer]net.Conn // of connections with a client certificate
}

// fingerprint is of the content of all files.
type fingerprint [sha256.Size]byte

// Open reads the files. Error: ErrFiles.
func Open(opt Options) (*Security, error) {
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	s := &Security{opt: opt, peers: make(map[*peer]net.Conn), noise: noise{log: opt.Logger, now: opt.Clock}}
	files, err := s.read()
	if err != nil {
		return nil, err
	}
	first, err := s.load(files)
	if err != nil {
		return nil, err
	}
	s.state.Store(first)
	s.seen = first.fingerprint
	s.warn()
	s.inner = credentials.NewTLS(&tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.state.Load().config, nil },
	})
	return s, nil
}

// Run looks at the files and at the connections until ctx is done.
func (s *Security) Run(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.poll()
		case <-ctx.Done():
			return
		}
	}
}

// poll takes a change over that has settled, warns of ends, and closes
// connections whose certificates have ended.
func (s *Security) poll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	files, err := s.read()
	now := s.opt.Clock()
	switch sum := files.fingerprint(err); {
	case sum == s.state.Load().fingerprint:
		s.seen, s.refused = sum, fingerprint{}
	case sum != s.seen:
		s.seen = sum // still being written, perhaps
	case sum != s.refused || !now.Before(s.retry):
		s.take(files, err)
	}
	s.warn()
	s.sweep()
}

// Reload reads the files at once. What cannot be used is logged and changes
// nothing; when it has returned, no call is accepted by an authority that was
// removed.
func (s *Security) Reload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	files, err := s.read()
	if err == nil && files.fingerprint(nil) == s.state.Load().fingerprint {
		s.opt.Logger.Info("certificates are unchanged")
		return
	}
	s.take(files, err)
	s.warn()
}

// take makes what was read the present state; s.mu is held.
func (s *Security) take(files files, err error) {
	sum := files.fingerprint(err)
	var next *state
	if err == nil {
		next, err = s.load(files)
	}
	if err != nil {
		s.refused, s.retry = sum, s.opt.Clock().Add(retryEvery)
		s.opt.Logger.Error("new certificates cannot be used; the earlier ones stay", "error", err.Error())
		return
	}
	next.generation = s.state.Load().generation + 1
	s.state.Store(next)
	s.seen, s.refused, s.quiet = next.fingerprint, fingerprint{}, time.Time{}
	s.opt.Logger.Info("certificates loaded anew", "ends", next.config.Certificates[0].Leaf.NotAfter, "client_authorities", next.authorities)
}

// Credentials are for the gRPC server. The AuthInfo of a connection whose client
// showed a certificate implements rpc.Certified.
func (s *Security) Credentials() credentials.TransportCredentials { return guard{s.inner, s} }

// guard is TLS whose connections are looked after.
type guard struct {
	credentials.TransportCredentials
	security *Security
}

// Clone returns itself: nothing of it changes.
func (g guard) Clone() credentials.TransportCredentials { return g }

// ServerHandshake notes the connection's client certificate, if there is one.
func (g guard) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := g.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) { // those looked whether somebody listens
			g.security.noise.note("no secure connection", "from", raw.RemoteAddr().String(), "error", err.Error())
		}
		return nil, nil, err
	}
	secured, ok := info.(credentials.TLSInfo)
	if !ok || len(secured.State.PeerCertificates) == 0 {
		return conn, info, nil
	}
	p := newPeer(g.security, secured)
	if _, err := p.Certificate(); errors.Is(err, auth.ErrCertificateEnded) {
		conn.Close()
		return nil, nil, fmt.Errorf("the handshake: %w", err) // overtaken by a change of the authorities
	}
	return g.security.attend(p, conn), p, nil
}

// noise bounds what strangers can write into the log to a line a second.
type noise struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	second int64
	silent int
}

func (n *noise) note(message string, args ...any) {
	n.mu.Lock()
	second := n.now().Unix()
	if second == n.second {
		n.silent++
		n.mu.Unlock()
		return
	}
	silent := n.silent
	n.second, n.silent = second, 0
	n.mu.Unlock()
	n.log.Warn(message, append(args, "not_logged_before", silent)...)
}
