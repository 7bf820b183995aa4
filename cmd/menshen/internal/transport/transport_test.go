package transport

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/menshen-io/menshen/cmd/menshen/internal/transport/transporttest"
	"github.com/menshen-io/menshen/matcher/auth"
)

// yard is a Security on files that the test changes, with a clock that it sets.
type yard struct {
	*Security
	t      *testing.T
	dir    string
	ca     transporttest.Issuer
	ahead  atomic.Int64 // nanoseconds that the clock is ahead
	logged lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was logged since it was last called.
func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

func newYard(t *testing.T, proof auth.Proof) *yard {
	t.Helper()
	y := &yard{t: t, dir: t.TempDir()}
	y.ca = y.authority(transporttest.Issuer{}, "ca")
	y.write("ca.pem", y.ca.PEM())
	y.server("server")
	var err error
	y.Security, err = Open(y.options(proof))
	y.ok(err)
	return y
}

func (y *yard) options(proof auth.Proof) Options {
	opt := Options{Cert: y.path("server.pem"), Key: y.path("server.key"), Proof: proof,
		Logger: slog.New(slog.NewTextHandler(&y.logged, nil)), Clock: func() time.Time { return time.Now().Add(time.Duration(y.ahead.Load())) }}
	if proof != auth.ByKey {
		opt.ClientCA = y.path("ca.pem")
	}
	return opt
}

func (y *yard) path(name string) string { return filepath.Join(y.dir, name) }

func (y *yard) ok(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) write(name string, parts ...[]byte) {
	y.t.Helper()
	y.ok(os.WriteFile(y.path(name), bytes.Join(parts, nil), 0o600))
}

func (y *yard) authority(by transporttest.Issuer, name string, change ...func(*x509.Certificate)) transporttest.Issuer {
	y.t.Helper()
	made, err := by.Authority(name, change...)
	y.ok(err)
	return made
}

func (y *yard) issue(by transporttest.Issuer, name string, change ...func(*x509.Certificate)) transporttest.Issuer {
	y.t.Helper()
	made, err := by.Issue(name, change...)
	y.ok(err)
	return made
}

// server writes a new certificate for the server, with its key.
func (y *yard) server(name string, change ...func(*x509.Certificate)) {
	y.t.Helper()
	y.ok(y.issue(y.ca, name, change...).Write(y.dir, "server"))
}

// visit is a connection, seen from both sides.
type visit struct {
	server net.Conn
	info   credentials.AuthInfo
	client *tls.Conn
}

func (v visit) certificate() (auth.Identity, error) { return v.info.(*peer).Certificate() }

// visit connects with a certificate (nil: none). The error is the server's, or the
// client's where the server has none.
func (y *yard) visit(cert *tls.Certificate, change ...func(*tls.Config)) (visit, error) {
	y.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	y.ok(err)
	defer l.Close()
	cfg := &tls.Config{ServerName: "gate.example", RootCAs: x509.NewCertPool(), NextProtos: []string{"h2"}}
	cfg.RootCAs.AddCert(y.ca.Cert)
	if cert != nil { // whatever the server says that it accepts
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	for _, f := range change {
		f(cfg)
	}
	shaken := make(chan error, 1)
	raw, err := net.Dial("tcp", l.Addr().String())
	y.ok(err)
	y.t.Cleanup(func() { raw.Close() })
	client := tls.Client(raw, cfg)
	go func() { shaken <- client.Handshake() }()
	accepted, err := l.Accept()
	y.ok(err)
	server, info, err := y.Credentials().ServerHandshake(accepted)
	if err != nil {
		accepted.Close()
		<-shaken
		return visit{}, err
	}
	y.t.Cleanup(func() { server.Close() })
	return visit{server, info, client}, <-shaken
}

func (y *yard) mustVisit(cert tls.Certificate) visit {
	y.t.Helper()
	v, err := y.visit(&cert)
	y.ok(err)
	return v
}

func TestWhoGetsAConnection(t *testing.T) {
	const everybody = "key certificate either both"
	for _, proof := range []auth.Proof{auth.ByKey, auth.ByCertificate, auth.ByEither, auth.ByBoth} {
		y := newYard(t, proof)
		middle := y.authority(y.ca, "middle")
		other := y.authority(transporttest.Issuer{}, "ca") // the same name
		gate := y.issue(y.ca, "gate", transporttest.URIs(transporttest.GateID))
		ip := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }
		for _, tc := range []struct {
			what string
			cert *tls.Certificate
			who  auth.Identity
			at   string // the proofs that let it in
		}{
			{"none", nil, "", "key either"},
			{"a gate's", new(gate.TLS()), transporttest.GateID, everybody},
			{"one below another authority", new(y.issue(middle, "gate").TLS(middle)), "CN=gate,O=Acme", everybody},
			{"one whose chain has a hole", new(y.issue(middle, "gate").TLS()), "", "key"},
			{"one of another authority of that name", new(y.issue(other, "gate").TLS(other)), "", "key"},
			{"one that signed itself", new(y.issue(transporttest.Issuer{}, "gate").TLS()), "", "key"},
			{"an expired one", new(y.issue(y.ca, "gate", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).TLS()), "", "key"},
			{"one of tomorrow", new(y.issue(y.ca, "gate", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }).TLS()), "", "key"},
			{"a server's", new(y.issue(y.ca, "gate", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }).TLS()), "", "key"},
			{"one for any use", new(y.issue(y.ca, "gate", func(c *x509.Certificate) { c.ExtKeyUsage = nil }).TLS()), "CN=gate,O=Acme", everybody},
			{"one with an IP address", new(y.issue(y.ca, "10.0.0.1", ip).TLS()), "CN=10.0.0.1,O=Acme", everybody},
			{"one signed by a gate", new(y.issue(gate, "admin").TLS(gate)), "", "key"},
			{"a gate's with another's key", &tls.Certificate{Certificate: gate.TLS().Certificate, PrivateKey: other.Key}, "", "key"},
		} {
			v, err := y.visit(tc.cert)
			want := slices.Contains(strings.Fields(tc.at), proof.String())
			if (err == nil) != want {
				t.Errorf("%s: %s: %v", proof, tc.what, err)
			}
			if p, ok := v.info.(*peer); err == nil && (proof == auth.ByKey || tc.cert == nil) == ok {
				t.Errorf("%s: %s: the server sees a certificate: %v", proof, tc.what, ok)
			} else if ok {
				if who, err := p.Certificate(); err != nil || who != tc.who {
					t.Errorf("%s: %s: %q, %v; want %q", proof, tc.what, who, err, tc.who)
				}
			}
		}
		if _, err := y.visit(new(gate.TLS()), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }); err == nil {
			t.Errorf("%s: TLS 1.2 got in", proof)
		}
		if _, err := y.visit(new(gate.TLS()), func(c *tls.Config) { c.NextProtos = nil }); err == nil {
			t.Errorf("%s: a client without ALPN got in", proof)
		}
	}
}

func TestSessionsAreNotResumed(t *testing.T) {
	y := newYard(t, auth.ByBoth)
	cert := y.issue(y.ca, "gate").TLS()
	cache := tls.NewLRUClientSessionCache(8)
	for range 3 {
		v, err := y.visit(&cert, func(c *tls.Config) { c.ClientSessionCache = cache })
		y.ok(err)
		go func() { // something to read, so that the client takes tickets too
			_, _ = v.server.Write([]byte("x"))
		}()
		var b [1]byte
		_, err = io.ReadFull(v.client, b[:])
		y.ok(err)
		if v.client.ConnectionState().DidResume {
			t.Fatal("a session was resumed: its client was verified by the authorities of another time")
		}
	}
}

func TestUnclearNamesAreToldAtTheCall(t *testing.T) {
	y := newYard(t, auth.ByBoth)
	v := y.mustVisit(y.issue(y.ca, "gate", transporttest.URIs("spiffe://a/b", "spiffe://a/c")).TLS())
	if who, err := v.certificate(); !errors.Is(err, auth.ErrCertificateNames) || who != "" {
		t.Errorf("%q, %v", who, err)
	}
}

func TestNewFilesAreTakenOver(t *testing.T) {
	y := newYard(t, auth.ByKey)
	shown := func() string {
		v, err := y.visit(nil)
		y.ok(err)
		return v.client.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	before, err := y.visit(nil)
	y.ok(err)
	y.logged.take()

	y.server("second")
	y.poll() // may still be being written
	if got := shown(); got != "server" {
		t.Errorf("after one look: %s", got)
	}
	y.poll()
	if got := shown(); got != "second" {
		t.Errorf("after two looks: %s", got)
	}
	y.poll()
	if log := y.logged.take(); strings.Count(log, "certificates loaded anew") != 1 {
		t.Errorf("logged %s", log)
	}

	// Each of these is logged, once, and changes nothing.
	for what, spoil := range map[string]func(){
		"another's key": func() {
			y.ok(y.issue(y.ca, "x").Write(y.dir, "x"))
			y.ok(os.Rename(y.path("x.key"), y.path("server.key")))
		},
		"no key":          func() { y.ok(os.Remove(y.path("server.key"))) },
		"half":            func() { y.write("server.pem", y.ca.PEM()[:200]) },
		"expired":         func() { y.server("x", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }) },
		"of tomorrow":     func() { y.server("x", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }) },
		"a huge file":     func() { y.write("server.pem", make([]byte, maxFile+1)) },
		"no file but dir": func() { y.ok(os.Remove(y.path("server.pem"))); y.ok(os.Mkdir(y.path("server.pem"), 0o700)) },
	} {
		spoil()
		for range 5 {
			y.poll()
		}
		if log := y.logged.take(); strings.Count(log, "new certificates cannot be used") != 1 {
			t.Errorf("%s: logged %s", what, log)
		}
		if got := shown(); got != "second" {
			t.Errorf("%s: the server shows %s", what, got)
		}
		y.ahead.Add(int64(retryEvery))
		y.poll()
		if log := y.logged.take(); !strings.Contains(log, "cannot be used") && what != "of tomorrow" {
			t.Errorf("%s: not tried again: %s", what, log)
		}
		y.ok(os.RemoveAll(y.path("server.pem")))
		y.server("second")
		y.Reload()
		y.logged.take()
		y.ahead.Store(0)
	}

	y.server("third")
	y.Reload()
	if got := shown(); got != "third" {
		t.Errorf("after Reload: %s", got)
	}
	y.Reload()
	if log := y.logged.take(); !strings.Contains(log, "unchanged") {
		t.Errorf("logged %s", log)
	}
	go func() { _, _ = before.server.Write([]byte("x")) }()
	var b [1]byte
	if _, err := io.ReadFull(before.client, b[:]); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
}

func TestRemovedAuthority(t *testing.T) {
	y := newYard(t, auth.ByBoth)
	second := y.authority(transporttest.Issuer{}, "second")
	y.write("ca.pem", y.ca.PEM(), second.PEM())
	y.Reload()
	first, other := y.mustVisit(y.issue(y.ca, "gate").TLS()), y.mustVisit(y.issue(second, "gate").TLS())
	good := func(v visit) bool {
		who, err := v.certificate()
		if err != nil && !errors.Is(err, auth.ErrCertificateEnded) || err == nil && who != "CN=gate,O=Acme" {
			t.Errorf("%q, %v", who, err)
		}
		return err == nil
	}
	if !good(first) || !good(other) {
		t.Fatal("a certificate of an authority of the file is not good")
	}
	y.write("ca.pem", second.PEM())
	y.Reload()
	if good(first) || !good(other) {
		t.Errorf("after the removal: first %v, second %v", good(first), good(other))
	}
	if _, err := y.visit(new(y.issue(y.ca, "gate").TLS())); err == nil {
		t.Error("a removed authority's certificate got in")
	}

	// It comes back before the connection is closed: then it goes on.
	y.poll()
	y.write("ca.pem", y.ca.PEM(), second.PEM())
	y.Reload()
	y.poll()
	y.poll()
	if !good(first) || len(y.peers) != 2 {
		t.Errorf("after it came back: %v, %d connections", good(first), len(y.peers))
	}

	// It stays away: the connection is closed, the other one is not.
	y.write("ca.pem", second.PEM())
	y.Reload()
	y.poll()
	y.poll()
	var b [1]byte
	y.ok(first.client.SetReadDeadline(time.Now().Add(2 * time.Minute)))
	if _, err := first.client.Read(b[:]); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is open: %v", err)
	}
	go func() { _, _ = other.server.Write([]byte("x")) }()
	if _, err := io.ReadFull(other.client, b[:]); err != nil {
		t.Errorf("the other authority's: %v", err)
	}
	first.server.Close()
	other.server.Close()
	if len(y.peers) != 0 {
		t.Errorf("%d closed connections are remembered", len(y.peers))
	}
}

// A chain is as good as the member of it that ends first, and a certificate as
// good as its best chain.
func TestCertificatesEndAtTheInstant(t *testing.T) {
	in := func(d time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(d) }
	}
	y := newYard(t, auth.ByEither)
	y.server("server", in(48*time.Hour))
	root := y.authority(transporttest.Issuer{}, "root", in(40*time.Minute))
	y.write("ca.pem", y.ca.PEM(), root.PEM())
	y.Reload()
	middle := y.authority(y.ca, "middle", in(20*time.Minute))
	for _, tc := range []struct {
		what string
		v    visit
		life time.Duration
	}{
		{"leaf", y.mustVisit(y.issue(y.ca, "gate", in(10*time.Minute)).TLS()), 10 * time.Minute},
		{"middle", y.mustVisit(y.issue(middle, "gate", in(50*time.Minute)).TLS(middle)), 20 * time.Minute},
		{"root", y.mustVisit(y.issue(root, "gate", in(50*time.Minute)).TLS()), 40 * time.Minute},
	} {
		y.ahead.Store(int64(tc.life - time.Minute))
		if _, err := tc.v.certificate(); err != nil {
			t.Errorf("%s: a minute before: %v", tc.what, err)
		}
		y.ahead.Store(int64(tc.life))
		if _, err := tc.v.certificate(); !errors.Is(err, auth.ErrCertificateEnded) {
			t.Errorf("%s: after it: %v", tc.what, err)
		}
		y.ahead.Store(0)
	}
}

func TestEndsAreWarnedOf(t *testing.T) {
	y := newYard(t, auth.ByBoth) // all live two hours, one of them over
	warnings := func() (server, authority int) {
		y.poll()
		log := y.logged.take()
		return strings.Count(log, "the server's certificate"), strings.Count(log, "CN=ca")
	}
	if s, a := warnings(); s+a != 0 {
		t.Errorf("%d and %d warnings an hour before, of two", s, a)
	}
	for _, step := range []struct {
		at       time.Duration
		expected int
	}{{37 * time.Minute, 1}, {38 * time.Minute, 0}, {43 * time.Minute, 1}, {44 * time.Minute, 0}, {61 * time.Minute, 1}, {62 * time.Minute, 0}} {
		y.ahead.Store(int64(step.at))
		if s, a := warnings(); s != step.expected || a != step.expected {
			t.Errorf("%s on: %d and %d warnings, want %d", step.at, s, a, step.expected)
		}
	}
}

func TestAuthoritiesAreReadStrictly(t *testing.T) {
	y := newYard(t, auth.ByBoth)
	good := string(y.ca.PEM())
	y.ok(y.ca.Write(y.dir, "x"))
	key, err := os.ReadFile(y.path("x.key"))
	y.ok(err)
	damaged := strings.Replace(good, good[100:104], "!!!!", 1)
	for what, tc := range map[string]struct {
		text string
		n    int // 0: refused
	}{
		"one": {good, 1}, "two": {good + good, 2}, "with words": {"the hall's authority\n" + good + "\nand no more\n", 1},
		"empty": {"", 0}, "words": {"none", 0}, "a key": {good + string(key), 0}, "cut": {good + good[:len(good)-40], 0},
		"damaged before": {damaged + good, 0}, "damaged after": {good + damaged, 0},
		"no certificate in it": {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0},
	} {
		if all, err := certificates([]byte(tc.text)); (err == nil) != (tc.n > 0) || len(all) != tc.n && err == nil {
			t.Errorf("%s: %d, %v; want %d", what, len(all), err, tc.n)
		}
	}
}

func TestOpenNamesTheFlag(t *testing.T) {
	y := newYard(t, auth.ByBoth)
	for flag, spoil := range map[string]func(*Options){
		"--tls-cert":      func(o *Options) { o.Cert = y.path("none.pem") },
		"--tls-key":       func(o *Options) { o.Key = y.path("none.pem") },
		"--tls-client-ca": func(o *Options) { o.ClientCA = y.path("server.key") },
	} {
		opt := y.options(auth.ByBoth)
		spoil(&opt)
		if _, err := Open(opt); !errors.Is(err, ErrFiles) || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// Calls ask while the authorities change: an answer is right for one of them, and
// once Reload has returned, for the last.
func TestReloadsBesideCalls(t *testing.T) {
	y := newYard(t, auth.ByBoth)
	second := y.authority(transporttest.Issuer{}, "second")
	y.write("ca.pem", y.ca.PEM(), second.PEM())
	y.Reload()
	first, other := y.mustVisit(y.issue(y.ca, "gate").TLS()), y.mustVisit(y.issue(second, "gate").TLS())
	stop := make(chan struct{})
	var calls sync.WaitGroup
	for _, v := range []visit{first, other, first, other} {
		calls.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if who, err := v.certificate(); (err == nil) != (who != "") {
					t.Errorf("%q, %v", who, err)
				}
			}
		})
	}
	for i := range 40 {
		keeps, loses := first, other
		bundle := y.ca.PEM()
		if i%2 == 1 {
			keeps, loses, bundle = other, first, second.PEM()
		}
		y.write("ca.pem", bundle)
		y.Reload()
		if _, err := loses.certificate(); !errors.Is(err, auth.ErrCertificateEnded) {
			t.Errorf("reload %d: the removed one: %v", i, err)
		}
		if _, err := keeps.certificate(); err != nil {
			t.Errorf("reload %d: the other: %v", i, err)
		}
	}
	close(stop)
	calls.Wait()
}

func TestAskingCostsNoMemory(t *testing.T) {
	y := newYard(t, auth.ByBoth)
	v := y.mustVisit(y.issue(y.ca, "gate").TLS())
	if n := testing.AllocsPerRun(1000, func() { _, _ = v.certificate() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
