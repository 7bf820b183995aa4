package config

import (
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Setting is one row of the table of settings.
type Setting struct {
	// Key is the name in the YAML file; the dots are nesting.
	Key string
	// Flag is the name on the command line, without the dashes.
	Flag string
	// Usage is the help text.
	Usage string

	bind func(fs *pflag.FlagSet, c *Config, name, usage string)
}

// Env is the setting's name in the environment.
func (s Setting) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(s.Key, ".", "_"))
}

// EnvPrefix begins the names of all environment variables of Menshen.
const EnvPrefix = "MENSHEN_"

// Settings is the table of all settings, in the order in which they are
// printed.
func Settings() []Setting {
	return []Setting{
		{"listen", "listen", "address of the gRPC service, host:port; port 0 picks a free one",
			text(func(c *Config) *string { return &c.Listen })},
		{"data_dir", "data-dir", "folder of the store and the keyring (with --dev by default menshen/dev in your cache folder)",
			text(func(c *Config) *string { return &c.DataDir })},
		{"root_key_file", "root-key-file", "file of the key that seals the keyring; keep it apart from the data and its backups",
			text(func(c *Config) *string { return &c.RootKeyFile })},
		{"root_key_url", "root-key-url", "key of a key management service that the root key file is sealed under, hashivault://NAME (default: the file holds the key as it is)",
			text(func(c *Config) *string { return &c.RootKeyURL })},
		{"dev", "dev", "for trying things out: loopback only, makes missing keys, allows evaluation models",
			flag(func(c *Config) *bool { return &c.Dev })},
		{"allow_public", "allow-public", "permit an address that is neither loopback nor in a private network",
			flag(func(c *Config) *bool { return &c.AllowPublic })},
		{"tls.cert_file", "tls-cert", "PEM file of the server's certificate chain",
			text(func(c *Config) *string { return &c.TLS.CertFile })},
		{"tls.key_file", "tls-key", "PEM file of the certificate's private key",
			text(func(c *Config) *string { return &c.TLS.KeyFile })},
		{"tls.client_ca_file", "tls-client-ca", "PEM file of authorities; clients must then show a certificate of one of them, unless tls.client_auth says otherwise",
			text(func(c *Config) *string { return &c.TLS.ClientCAFile })},
		{"tls.client_auth", "tls-client-auth", "what callers show: key (API key), certificate (that a credential is bound to), either, or both (default: both with --tls-client-ca, else key)",
			text(func(c *Config) *string { return &c.TLS.ClientAuth })},
		{"models.detector", "detector", "face detector: registry name, manifest or .onnx file; \"none\" takes no camera images (--dev default)",
			text(func(c *Config) *string { return &c.Models.Detector })},
		{"models.embedder", "embedder", "face embedder: registry name, manifest or .onnx file (--dev default: the built-in reference model)",
			text(func(c *Config) *string { return &c.Models.Embedder })},
		{"models.dir", "models-dir", "folder of imported and fetched models (default menshen/models in your cache folder)",
			text(func(c *Config) *string { return &c.Models.Dir })},
		{"models.runtime", "runtime", "path of the ONNX Runtime library (default: the usual places, see menshen models --help)",
			text(func(c *Config) *string { return &c.Models.Runtime })},
		{"models.provider", "inference-provider", "what runs the models: cpu, cuda, tensorrt or openvino, if the ONNX Runtime library has it",
			text(func(c *Config) *string { return &c.Models.Provider })},
		{"models.concurrency", "inference-concurrency", "CPUs for inference and decoding images; 0 means all",
			number(func(c *Config) *int { return &c.Models.Concurrency })},
		{"models.intra_op", "inference-threads", "threads of an inference on an idle machine; 0 measures what is fastest, 1 spares the memory of a second copy of each model",
			number(func(c *Config) *int { return &c.Models.IntraOp })},
		{"models.remeasure", "remeasure", "measure at this start how the models run best, even where an earlier start has kept it",
			flag(func(c *Config) *bool { return &c.Models.Remeasure })},
		{"kernel", "kernel", "search kernel, for tests and comparisons: avx512vnni, avx2, neon or reference (default: the fastest that this CPU runs)",
			text(func(c *Config) *string { return &c.Kernel })},
		{"limits.image_bytes", "max-image-bytes", "largest image file",
			size(func(c *Config) *ByteSize { return &c.Limits.ImageBytes })},
		{"limits.image_pixels", "max-image-pixels", "largest image, in pixels",
			number(func(c *Config) *int { return &c.Limits.ImagePixels })},
		{"limits.message_bytes", "max-message-bytes", "largest gRPC message",
			size(func(c *Config) *ByteSize { return &c.Limits.MessageBytes })},
		{"limits.probe_bytes", "max-probe-bytes", "probes that wait or are worked on at a time, in all; more calls are refused",
			size(func(c *Config) *ByteSize { return &c.Limits.ProbeBytes })},
		{"limits.arriving_bytes", "max-arriving-bytes", "messages on their way at a time, in all, with 16KiB for each call; beyond, whoever sends the most is refused and cut off (0: a sixteenth of the memory, 64MiB to 1GiB)",
			size(func(c *Config) *ByteSize { return &c.Limits.ArrivingBytes })},
		{"limits.stall_time", "stall-time", "a message that takes longer to arrive, unless it keeps up limits.arrival_rate, is cut off, and so is a stream whose answer is not read for as long",
			span(func(c *Config) *time.Duration { return &c.Limits.StallTime })},
		{"limits.arrival_rate", "min-arrival-rate", "what a message must bring each second beyond limits.stall_time",
			size(func(c *Config) *ByteSize { return &c.Limits.ArrivalRate })},
		{"limits.connections", "max-connections", "connections at a time",
			number(func(c *Config) *int { return &c.Limits.Connections })},
		{"limits.connections_per_address", "max-connections-per-address", "connections at a time from one address (of IPv6: one /64 network)",
			number(func(c *Config) *int { return &c.Limits.ConnectionsPerAddress })},
		{"limits.tenant_percent", "max-tenant-percent", "the most of the machine that one tenant may have at a time, also when no other needs it",
			number(func(c *Config) *int { return &c.Limits.TenantPercent })},
		{"store.min_free", "min-free", "free disk space below which enrolment is refused; erasing and revoking go on down to an eighth of it",
			size(func(c *Config) *ByteSize { return &c.Store.MinFree })},
		{"audit.keep_days", "audit-keep-days", "for how many days administrative acts are kept in the audit log; 0 means for ever (decisions: see menshen scopes create)",
			number(func(c *Config) *int { return &c.Audit.KeepDays })},
		{"audit.linkable_days", "audit-linkable-days", "for how many days the pseudonyms of the audit log could be found by who holds the keys and knows a subject's id; 0 means for ever",
			number(func(c *Config) *int { return &c.Audit.LinkableDays })},
		{"log.level", "log-level", "debug, info, warn or error",
			text(func(c *Config) *string { return &c.Log.Level })},
		{"log.format", "log-format", "text or json",
			text(func(c *Config) *string { return &c.Log.Format })},
		{"sweep_every", "sweep-every", "how soon what has expired is erased; it stops matching at its very second, whatever this says",
			span(func(c *Config) *time.Duration { return &c.SweepEvery })},
		{"drain_delay", "drain-delay", "how long calls are still taken after SIGINT or SIGTERM while health says NOT_SERVING; give what your load balancer needs to notice",
			span(func(c *Config) *time.Duration { return &c.DrainDelay })},
		{"drain_timeout", "drain-timeout", "how long calls under way may go on after SIGINT or SIGTERM",
			span(func(c *Config) *time.Duration { return &c.DrainTimeout })},
	}
}

type binder = func(fs *pflag.FlagSet, c *Config, name, usage string)

func text(field func(*Config) *string) binder {
	return func(fs *pflag.FlagSet, c *Config, name, usage string) {
		fs.StringVar(field(c), name, *field(c), usage)
	}
}

func flag(field func(*Config) *bool) binder {
	return func(fs *pflag.FlagSet, c *Config, name, usage string) {
		fs.BoolVar(field(c), name, *field(c), usage)
	}
}

func number(field func(*Config) *int) binder {
	return func(fs *pflag.FlagSet, c *Config, name, usage string) {
		fs.IntVar(field(c), name, *field(c), usage)
	}
}

func span(field func(*Config) *time.Duration) binder {
	return func(fs *pflag.FlagSet, c *Config, name, usage string) {
		fs.DurationVar(field(c), name, *field(c), usage)
	}
}

func size(field func(*Config) *ByteSize) binder {
	return func(fs *pflag.FlagSet, c *Config, name, usage string) {
		fs.Var(field(c), name, usage)
	}
}
