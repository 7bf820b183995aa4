package transport

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/menshen-io/menshen/matcher/auth"
)

// state is what secures connections from one reading of the files to the next.
type state struct {
	generation  uint64
	fingerprint fingerprint
	config      *tls.Config
	authorities int
	ends        []end
}

// end is when something stops being valid.
type end struct {
	what        string
	from, until time.Time
}

// files are the contents of the files.
type files struct{ cert, key, clientCA []byte }

// fingerprint is of the contents, or of why they cannot be read.
func (f files) fingerprint(err error) fingerprint {
	h := sha256.New()
	for _, b := range [][]byte{f.cert, f.key, f.clientCA} {
		sum := sha256.Sum256(b)
		h.Write(sum[:])
	}
	if err != nil {
		io.WriteString(h, err.Error()) // a hash takes everything
	}
	return fingerprint(h.Sum(nil))
}

// maxFile is far above what a chain or a bundle of authorities needs.
const maxFile = 4 << 20

func (s *Security) read() (f files, err error) {
	for _, one := range []struct {
		flag, path string
		into       *[]byte
	}{{"--tls-cert", s.opt.Cert, &f.cert}, {"--tls-key", s.opt.Key, &f.key}, {"--tls-client-ca", s.opt.ClientCA, &f.clientCA}} {
		if one.path == "" {
			continue
		}
		if *one.into, err = readFile(one.path); err != nil {
			return files{}, fmt.Errorf("%w: %s: %w", ErrFiles, one.flag, err)
		}
	}
	return f, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes; it is no file of certificates", path, maxFile)
	}
	return data, err
}

// load makes a state of what was read, of generation 0.
func (s *Security) load(f files) (*state, error) {
	pair, err := tls.X509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("%w: --tls-cert %s and --tls-key %s: %w", ErrFiles, s.opt.Cert, s.opt.Key, err)
	}
	now, leaf := s.opt.Clock(), pair.Leaf
	switch {
	case !now.Before(leaf.NotAfter):
		return nil, fmt.Errorf("%w: --tls-cert %s expired at %s; renew it", ErrFiles, s.opt.Cert, leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return nil, fmt.Errorf("%w: --tls-cert %s is not valid before %s; check the clock of this machine", ErrFiles, s.opt.Cert, leaf.NotBefore.Format(time.RFC3339))
	}
	next := &state{fingerprint: f.fingerprint(nil), config: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true, Time: s.opt.Clock,
	}}
	next.ends = append(next.ends, end{"the server's certificate", leaf.NotBefore, leaf.NotAfter})
	switch s.opt.Proof {
	case auth.ByCertificate, auth.ByBoth:
		next.config.ClientAuth = tls.RequireAndVerifyClientCert
	case auth.ByEither:
		next.config.ClientAuth = tls.VerifyClientCertIfGiven
	default:
		return next, nil
	}
	roots, err := certificates(f.clientCA)
	if err != nil {
		return nil, fmt.Errorf("%w: --tls-client-ca: %s %w", ErrFiles, s.opt.ClientCA, err)
	}
	next.authorities, next.config.ClientCAs = len(roots), x509.NewCertPool()
	for _, c := range roots {
		next.config.ClientCAs.AddCert(c)
		next.ends = append(next.ends, end{fmt.Sprintf("the client authority %.200q", c.Subject.String()), c.NotBefore, c.NotAfter})
	}
	return next, nil
}

// certificates reads all certificates of a PEM file. One that cannot be read is
// an error: passing it over would remove an authority.
func certificates(data []byte) (all []*x509.Certificate, err error) {
	begun := bytes.Count(data, []byte("-----BEGIN "))
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if data = rest; block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %.40q; it should hold certificates alone", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a certificate that cannot be read, the %dth: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	switch {
	case len(all) != begun: // pem.Decode passes over what it cannot read
		return nil, errors.New("holds a certificate that is damaged or cut off")
	case len(all) == 0:
		return nil, errors.New("holds no PEM certificate")
	}
	return all, nil
}

// nearEnd is how long before an end there are warnings: a fifth of the whole
// life, at most a month. Who renews in time does so earlier.
func (e end) nearEnd() time.Duration { return min(e.until.Sub(e.from)/5, 30*24*time.Hour) }

// warn says what is near its end, again after a quarter of what is left; s.mu is
// held, or nobody else is there yet.
func (s *Security) warn() {
	now := s.opt.Clock()
	if now.Before(s.quiet) {
		return
	}
	pause, said := 24*time.Hour, false
	for _, e := range s.state.Load().ends {
		left := e.until.Sub(now)
		if left > e.nearEnd() {
			continue
		}
		said = true
		if left > 0 {
			pause = min(pause, max(left/4, time.Minute))
			s.opt.Logger.Warn("a certificate is near its end; renew it", "certificate", e.what, "ends", e.until, "left", left.Round(time.Second))
			continue
		}
		s.opt.Logger.Error("a certificate has ended: connections that need it fail", "certificate", e.what, "ended", e.until)
		pause = min(pause, time.Hour)
	}
	if said {
		s.quiet = now.Add(pause)
	}
}
