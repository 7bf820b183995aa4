// Package config is the server's configuration: one struct, its defaults, the
// table that names every setting, and the rules that it must keep.
//
// A setting has one name in three spellings: "tls.cert_file" in the YAML file,
// MENSHEN_TLS_CERT_FILE in the environment and --tls-cert on the command line.
// A later source wins over an earlier one: defaults, file, environment, flags.
//
// It promises: a name that is not in the table is an error that says so and
// names the nearest one; a value is parsed by the same code whatever its
// source; Validate reports all problems at once. It holds paths of secrets,
// never secrets, so that a Config may be printed and logged. It opens nothing.
package config

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/models"
)

// Config is everything that `menshen serve` can be told. Copy it freely.
type Config struct {
	// Listen is the address of the gRPC service, host:port. Port 0 picks a
	// free one.
	Listen string
	// DataDir holds the store and the keyring.
	DataDir string
	// RootKeyFile holds the key that seals the keyring. The server replaces it
	// each time that a scope's key is destroyed.
	RootKeyFile string
	// RootKeyURL names the key management service that the file is sealed under.
	// Empty: none.
	RootKeyURL string
	// Dev is the mode for trying things out: loopback only, keys are made
	// when missing, evaluation models are allowed.
	Dev bool
	// AllowPublic permits an address outside loopback and private networks.
	AllowPublic bool
	// Kernel names the implementation that galleries are searched with. Empty:
	// the fastest that the CPU runs; results are the same with all.
	Kernel string
	TLS    TLS
	Models Models
	Limits Limits
	Store  Store
	Audit  Audit
	Log    Log
	// SweepEvery is how long what has expired waits until it is erased. It stopped
	// matching before, at its very second.
	SweepEvery time.Duration
	// DrainDelay is how long calls are still taken after a signal, while health
	// says NOT_SERVING, so that load balancers look elsewhere first.
	DrainDelay time.Duration
	// DrainTimeout bounds how long calls under way may go on after that.
	DrainTimeout time.Duration
}

// TLS names the files of transport security. All PEM.
type TLS struct {
	CertFile string
	KeyFile  string
	// ClientCAFile holds the authorities of client certificates.
	ClientCAFile string
	// ClientAuth is what callers must show: key, certificate, either or both.
	// Empty: both where there is a ClientCAFile, else key.
	ClientAuth string
}

// Proof is what callers must show, 0 for a word that says nothing.
func (t TLS) Proof() auth.Proof {
	word := t.ClientAuth
	if word == "" && t.ClientCAFile != "" {
		return auth.ByBoth
	}
	for _, p := range []auth.Proof{auth.ByKey, auth.ByCertificate, auth.ByEither, auth.ByBoth} {
		if word == p.String() || word == "" {
			return p
		}
	}
	return 0
}

// Models says what the faces are found and compared with. Detector and
// Embedder are registry names, manifest files or .onnx files.
type Models struct {
	// Detector "none" leaves camera images out: crops and embeddings only.
	Detector string
	Embedder string
	// Dir holds imported and fetched models. Empty: the user's cache.
	Dir string
	// Runtime is the path of the ONNX Runtime library. Empty: the usual
	// places.
	Runtime string
	// Provider is the execution provider of ONNX Runtime.
	Provider string
	// Concurrency is the number of CPUs for inference and for decoding
	// images. 0: all.
	Concurrency int
	// IntraOp is the number of threads of an inference on an idle machine. 0:
	// as measured.
	IntraOp int
	// Remeasure measures the models even where a measurement is kept.
	Remeasure bool
}

// Limits of what is accepted from clients.
type Limits struct {
	ImageBytes   ByteSize
	ImagePixels  int
	MessageBytes ByteSize
	// ProbeBytes bounds the probes that wait or are worked on at a time.
	ProbeBytes ByteSize
	// ArrivingBytes bounds the messages that are on their way at a time. 0: by
	// the memory there is.
	ArrivingBytes ByteSize
	// StallTime is how long a message may take to arrive, and ArrivalRate, in
	// bytes a second, what it must bring beyond that.
	StallTime   time.Duration
	ArrivalRate ByteSize
	// Connections and ConnectionsPerAddress bound the connections at a time.
	Connections, ConnectionsPerAddress int
	// TenantPercent is the most of the machine that one tenant may have at a
	// time, also when it is alone.
	TenantPercent int
}

// Store settings.
type Store struct {
	// MinFree is the free disk space below which writes other than erasure
	// are refused.
	MinFree ByteSize
}

// Audit settings.
type Audit struct {
	// KeepDays is for how many days acts are kept; 0: for ever.
	KeepDays int
	// LinkableDays is for how many days who holds the keys and knows a subject's id
	// could find its pseudonyms; 0: for ever.
	LinkableDays int
}

// Log settings.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// DefaultListen is where the server listens and where clients look for it when
// nothing else is said. 7443 is not assigned by IANA to a service of wide use.
const DefaultListen = "127.0.0.1:7443"

// NoDetector is the detector reference of a server that takes no camera images.
const NoDetector = "none"

// Default returns the configuration that applies where nothing is said.
func Default() Config {
	return Config{
		Listen: DefaultListen,
		Models: Models{Provider: string(models.ProviderCPU)},
		Limits: Limits{
			ImageBytes:   16 << 20,
			ImagePixels:  50_000_000,
			MessageBytes: 20 << 20,
			ProbeBytes:   256 << 20,

			StallTime: 10 * time.Second, ArrivalRate: 16 << 10,
			Connections: 8192, ConnectionsPerAddress: 2048,
			TenantPercent: 100,
		},
		Store:        Store{MinFree: 256 << 20},
		Audit:        Audit{KeepDays: 1096, LinkableDays: 7},
		Log:          Log{Level: "info", Format: "text"},
		SweepEvery:   matcher.DefaultSweepEvery,
		DrainTimeout: 15 * time.Second,
	}
}

// DevDataDir is the data directory of the --dev mode when none is named:
// menshen/dev in the user's cache folder.
func DevDataDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder for the --dev data: %w; name a folder with --data-dir", err)
	}
	return filepath.Join(cache, "menshen", "dev"), nil
}

// RootKeyName and AdminKeyName are the files that the --dev mode makes inside
// its data directory.
const (
	RootKeyName  = "root.key"
	AdminKeyName = "admin.key"
)

// Complete fills in what follows from other settings: in the --dev mode the
// data directory and the root key file; everywhere an absolute DataDir.
func (c *Config) Complete() error {
	if c.Dev {
		if c.DataDir == "" {
			dir, err := DevDataDir()
			if err != nil {
				return err
			}
			c.DataDir = dir
		}
		if c.RootKeyFile == "" {
			c.RootKeyFile = filepath.Join(c.DataDir, RootKeyName)
		}
	}
	if c.DataDir != "" {
		abs, err := filepath.Abs(c.DataDir)
		if err != nil {
			return fmt.Errorf("data_dir: %w", err)
		}
		c.DataDir = abs
	}
	return nil
}
