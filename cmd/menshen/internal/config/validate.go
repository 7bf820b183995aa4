package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/models"
)

// ErrInvalid: the configuration breaks a rule. The error lists all breaches.
var ErrInvalid = errors.New("the configuration cannot be used")

// Reach says from how far an address can be reached.
type Reach int

// The reaches, from the nearest on.
const (
	Loopback Reach = iota // this machine only
	Private               // private networks (RFC 1918, RFC 4193, link-local)
	Public                // anybody, as far as the address tells
)

// ReachOf tells from how far a listener at host can be reached. An empty or
// unspecified host (0.0.0.0, ::) listens on every interface and is Public, and
// so is a name other than localhost, because a name can come to mean anything.
func ReachOf(host string) Reach {
	if host == "localhost" {
		return Loopback
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return Public
	case ip.Unmap().IsLoopback():
		return Loopback
	case ip.Unmap().IsPrivate(), ip.Unmap().IsLinkLocalUnicast():
		return Private
	}
	return Public
}

// Validate checks the configuration against the rules and returns ErrInvalid
// with every breach and what to do about it, one a line.
func (c Config) Validate() error {
	var breaches []string
	bad := func(format string, args ...any) { breaches = append(breaches, fmt.Sprintf(format, args...)) }

	c.validateAddress(bad)
	if c.DataDir == "" {
		bad("data_dir: name the folder of the store (--data-dir DIR), or try things out with --dev")
	}
	if c.RootKeyFile == "" {
		bad("root_key_file: name the file of the root key (--root-key-file FILE); \"menshen init\" makes one")
	}
	c.validateModels(bad)
	if c.Limits.ImageBytes < 1<<10 || c.Limits.ImageBytes > 256<<20 {
		bad("limits.image_bytes: %s is outside 1KiB to 256MiB", c.Limits.ImageBytes)
	}
	if c.Limits.ImagePixels < 112*112 || c.Limits.ImagePixels > 1_000_000_000 {
		bad("limits.image_pixels: %d is outside 12544 (112x112) to 1000000000", c.Limits.ImagePixels)
	}
	if c.Limits.MessageBytes < 64<<10 || c.Limits.MessageBytes > 1<<30 {
		bad("limits.message_bytes: %s is outside 64KiB to 1GiB", c.Limits.MessageBytes)
	}
	if c.Limits.ProbeBytes < c.Limits.MessageBytes {
		bad("limits.probe_bytes: %s holds no message of limits.message_bytes, %s", c.Limits.ProbeBytes, c.Limits.MessageBytes)
	}
	if c.Limits.ArrivingBytes != 0 && c.Limits.ArrivingBytes < c.Limits.MessageBytes {
		bad("limits.arriving_bytes: %s holds no message of limits.message_bytes, %s", c.Limits.ArrivingBytes, c.Limits.MessageBytes)
	}
	if c.Limits.StallTime < time.Second || c.Limits.StallTime > 10*time.Minute {
		bad("limits.stall_time: %v is outside 1s to 10m", c.Limits.StallTime)
	}
	if c.Limits.ArrivalRate < 1 {
		bad("limits.arrival_rate: %s; at least 1B a second is needed", c.Limits.ArrivalRate)
	}
	if c.Limits.Connections < 1 || c.Limits.ConnectionsPerAddress < 1 {
		bad("limits.connections: %d, and %d for an address; at least 1 each is needed", c.Limits.Connections, c.Limits.ConnectionsPerAddress)
	}
	if c.Limits.TenantPercent < 1 || c.Limits.TenantPercent > 100 {
		bad("limits.tenant_percent: %d is outside 1 to 100", c.Limits.TenantPercent)
	}
	if c.Audit.KeepDays < 0 || c.Audit.KeepDays > 36600 {
		bad("audit.keep_days: %d is outside 0 to 36600", c.Audit.KeepDays)
	}
	if c.Audit.LinkableDays < 0 || c.Audit.LinkableDays > 36600 {
		bad("audit.linkable_days: %d is outside 0 to 36600", c.Audit.LinkableDays)
	}
	if c.Store.MinFree < 64<<20 {
		bad("store.min_free: %s is below 64MiB; the store needs room to work, and a full disk would end the server", c.Store.MinFree)
	}
	switch c.Log.Level {
	case "debug", "info", "warn", "error":
	default:
		bad("log.level: %q is none of debug, info, warn, error", c.Log.Level)
	}
	switch c.Log.Format {
	case "text", "json":
	default:
		bad("log.format: %q is neither text nor json", c.Log.Format)
	}
	if c.SweepEvery < time.Second || c.SweepEvery > time.Hour {
		bad("sweep_every: %s is outside 1s to 1h", c.SweepEvery)
	}
	if c.DrainDelay < 0 {
		bad("drain_delay: %s is negative; 0 ends at once", c.DrainDelay)
	}
	if c.DrainTimeout < 0 {
		bad("drain_timeout: %s is negative; 0 stops at once", c.DrainTimeout)
	}
	if len(breaches) == 0 {
		return nil
	}
	return fmt.Errorf("%w:\n  %s", ErrInvalid, strings.Join(breaches, "\n  "))
}

func (c Config) validateAddress(bad func(string, ...any)) {
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		bad("tls: cert_file and key_file belong together; give both (--tls-cert, --tls-key) or neither")
	}
	if c.TLS.ClientCAFile != "" && c.TLS.CertFile == "" {
		bad("tls.client_ca_file: client certificates need TLS; give --tls-cert and --tls-key too")
	}
	switch proof := c.TLS.Proof(); {
	case proof == 0:
		bad("tls.client_auth: %q is none of key, certificate, either, both", c.TLS.ClientAuth)
	case proof == auth.ByKey && c.TLS.ClientCAFile != "":
		bad("tls.client_auth: with key no client certificate is asked for; leave --tls-client-ca out, or choose either or both")
	case proof != auth.ByKey && c.TLS.ClientCAFile == "":
		bad("tls.client_auth: %s needs the authorities of client certificates; give --tls-client-ca FILE", proof)
	case proof == auth.ByCertificate && c.Dev:
		bad("tls.client_auth: --dev makes an admin key, which certificate does not accept; choose either")
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		bad("listen: %q is not host:port, such as %s", c.Listen, DefaultListen)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		bad("listen: %q is not a port from 0 to 65535", port)
	}
	reach := ReachOf(host)
	switch {
	case c.Dev && reach != Loopback:
		bad("listen: --dev serves this machine only; listen on 127.0.0.1, or leave --dev out and set up keys and TLS")
	case !c.Dev && c.TLS.CertFile == "":
		bad("listen: faces travel encrypted only; give --tls-cert and --tls-key for %s (plain text is for --dev, on this machine)", c.Listen)
	}
	if !c.Dev && reach == Public && !c.AllowPublic {
		bad("listen: %s can be reached from outside private networks; listen on the address of your gate network, or give --allow-public if this is meant", c.Listen)
	}
}

func (c Config) validateModels(bad func(string, ...any)) {
	if !c.Dev && c.Models.Embedder == "" {
		bad("models.embedder: name the model that compares faces (--embedder); \"menshen models list\" shows what there is")
	}
	if !c.Dev && c.Models.Detector == "" {
		bad("models.detector: name the model that finds faces (--detector), or \"none\" for a server that takes crops and embeddings only")
	}
	if c.Models.Embedder == NoDetector {
		bad("models.embedder: a server without an embedder compares nothing; name one")
	}
	if c.Models.Concurrency < 0 || c.Models.Concurrency > 1024 {
		bad("models.concurrency: %d is outside 0 (all CPUs) to 1024", c.Models.Concurrency)
	}
	if c.Models.IntraOp < 0 || c.Models.IntraOp > 256 {
		bad("models.intra_op: %d is outside 0 (measure) to 256", c.Models.IntraOp)
	}
	if !slices.Contains(models.Providers(), models.Provider(c.Models.Provider)) {
		bad("models.provider: %q is none of %s", c.Models.Provider, models.ProviderNames())
	}
}

// RootKeyInside reports whether the root key lies inside the data directory, so
// that a copy of the directory carries the key that opens it.
func (c Config) RootKeyInside() bool {
	key, err := filepath.Abs(c.RootKeyFile)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(c.DataDir, key)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
