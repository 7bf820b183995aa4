package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// load runs one whole Load with a file (unless empty), variables and flags.
func load(t *testing.T, yaml string, environ, args []string) (Config, *Loader, error) {
	t.Helper()
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	l := NewLoader(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	path := ""
	if yaml != "" {
		path = filepath.Join(t.TempDir(), "menshen.yaml")
		if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := l.Load(path, environ)
	return cfg, l, err
}

func TestLaterSourcesWin(t *testing.T) {
	yaml := "listen: 127.0.0.1:1\ndrain_timeout: 1s\nmodels:\n  detector: from-file\n  concurrency: 3\nlimits:\n  image_bytes: 8MiB\n"
	environ := []string{"PATH=/bin", "MENSHEN_LISTEN=127.0.0.1:2", "MENSHEN_MODELS_DETECTOR=from-env", "MENSHEN_DRAIN_TIMEOUT=2s"}
	cfg, _, err := load(t, yaml, environ, []string{"--listen", "127.0.0.1:3", "--data-dir", "/x"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listen = "127.0.0.1:3"
	want.DataDir = "/x"
	want.DrainTimeout = 2 * time.Second
	want.Models.Detector = "from-env"
	want.Models.Concurrency = 3
	want.Limits.ImageBytes = 8 << 20
	if cfg != want {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

func TestEveryProblemOfEverySourceIsNamed(t *testing.T) {
	yaml := "lissten: 127.0.0.1:1\ntls: no\nmodels:\n  concurrency: many\n  colour: red\ndata_dir:\n"
	environ := []string{"MENSHEN_DATADIR=/x", "MENSHEN_LIMITS_IMAGE_BYTES=1.5MiB", "MENSHEN_SERVICE_HOST=10.0.0.1", "MENSHEN_API_KEY=k"}
	_, _, err := load(t, yaml, environ, nil)
	if !errors.Is(err, ErrUnknownKey) || !errors.Is(err, ErrBadValue) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		`"lissten"; did you mean listen?`,
		`"tls": it is a section that holds tls.cert_file`,
		`models.concurrency: strconv.ParseInt: parsing "many"`,
		`"models.colour"`,
		"data_dir has no value",
		"MENSHEN_DATADIR; did you mean MENSHEN_DATA_DIR?",
		`MENSHEN_LIMITS_IMAGE_BYTES: "1.5MiB" is not a size`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in:\n%v", want, err)
		}
	}
	for _, leave := range []string{"MENSHEN_SERVICE_HOST", "MENSHEN_API_KEY"} {
		if strings.Contains(err.Error(), leave) {
			t.Errorf("%s is not ours to complain about:\n%v", leave, err)
		}
	}
}

func TestBadValueIsReportedEvenWhereAFlagWins(t *testing.T) {
	_, _, err := load(t, "", []string{"MENSHEN_MODELS_CONCURRENCY=x"}, []string{"--inference-concurrency", "2"})
	if !errors.Is(err, ErrBadValue) {
		t.Errorf("got %v", err)
	}
}

func TestBadFiles(t *testing.T) {
	for name, yaml := range map[string]string{
		"not yaml":      "listen: [",
		"twice":         "listen: a:1\nlisten: b:1\n",
		"not a mapping": "- listen\n",
	} {
		if _, _, err := load(t, yaml, nil, nil); !errors.Is(err, ErrFile) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	if _, err := NewLoader(fs).Load(filepath.Join(t.TempDir(), "none.yaml"), nil); !errors.Is(err, ErrFile) {
		t.Errorf("missing file: got %v", err)
	}
}

func TestPrintedConfigLoadsToTheSame(t *testing.T) {
	args := []string{"--dev", "--data-dir", "/data x", "--max-image-bytes", "3000", "--min-free", "0", "--detector", `a"b`, "--drain-timeout", "90s"}
	cfg, l, err := load(t, "", nil, args)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := l.Print(&out, cfg); err != nil {
		t.Fatal(err)
	}
	again, _, err := load(t, out.String(), nil, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if again != cfg {
		t.Errorf("got  %+v\nwant %+v\n%s", again, cfg, out.String())
	}
	if !strings.Contains(out.String(), "dev: true  # flag --dev") {
		t.Errorf("no source in\n%s", out.String())
	}
}

func production() Config {
	c := Default()
	c.DataDir, c.RootKeyFile = "/d", "/k"
	c.TLS.CertFile, c.TLS.KeyFile = "c", "k"
	c.Models.Detector, c.Models.Embedder = "none", "e"
	return c
}

func TestValidate(t *testing.T) {
	if err := production().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string // "" for valid
	}{
		{"no data dir", func(c *Config) { c.DataDir = "" }, "data_dir:"},
		{"no root key", func(c *Config) { c.RootKeyFile = "" }, "root_key_file:"},
		{"no embedder", func(c *Config) { c.Models.Embedder = "" }, "models.embedder:"},
		{"embedder none", func(c *Config) { c.Models.Embedder = "none" }, "models.embedder:"},
		{"no detector", func(c *Config) { c.Models.Detector = "" }, "models.detector:"},
		{"no port", func(c *Config) { c.Listen = "127.0.0.1" }, "is not host:port"},
		{"port too large", func(c *Config) { c.Listen = "127.0.0.1:70000" }, "is not a port"},
		{"port name", func(c *Config) { c.Listen = "127.0.0.1:grpc" }, "is not a port"},
		{"private without tls", func(c *Config) { c.Listen, c.TLS = "10.1.2.3:1", TLS{} }, "encrypted only"},
		{"loopback without tls", func(c *Config) { c.TLS = TLS{} }, "encrypted only"},
		{"private with tls", func(c *Config) { c.Listen = "10.1.2.3:1" }, ""},
		{"all interfaces", func(c *Config) { c.Listen = ":1" }, "--allow-public"},
		{"public allowed", func(c *Config) { c.Listen, c.AllowPublic = "8.8.8.8:1", true }, ""},
		{"public without tls", func(c *Config) { c.Listen, c.AllowPublic, c.TLS = "8.8.8.8:1", true, TLS{} }, "encrypted only"},
		{"cert without key", func(c *Config) { c.TLS.KeyFile = "" }, "belong together"},
		{"client ca alone", func(c *Config) { c.TLS = TLS{ClientCAFile: "ca"} }, "client certificates need TLS"},
		{"client ca", func(c *Config) { c.TLS.ClientCAFile = "ca" }, ""},
		{"certificates", func(c *Config) { c.TLS.ClientCAFile, c.TLS.ClientAuth = "ca", "certificate" }, ""},
		{"a word that is none", func(c *Config) { c.TLS.ClientCAFile, c.TLS.ClientAuth = "ca", "Both" }, "tls.client_auth:"},
		{"certificates of nobody", func(c *Config) { c.TLS.ClientAuth = "either" }, "--tls-client-ca"},
		{"keys with authorities", func(c *Config) { c.TLS.ClientCAFile, c.TLS.ClientAuth = "ca", "key" }, "leave --tls-client-ca out"},
		{"dev by certificate", func(c *Config) { c.Dev, c.TLS.ClientCAFile, c.TLS.ClientAuth = true, "ca", "certificate" }, "choose either"},
		{"dev on a network", func(c *Config) { c.Dev = true; c.Listen = "10.0.0.1:1" }, "this machine only"},
		{"dev on ::1", func(c *Config) { c.Dev = true; c.Listen = "[::1]:0" }, ""},
		{"log level", func(c *Config) { c.Log.Level = "loud" }, "log.level:"},
		{"log format", func(c *Config) { c.Log.Format = "xml" }, "log.format:"},
		{"image bytes", func(c *Config) { c.Limits.ImageBytes = 1 }, "limits.image_bytes:"},
		{"image pixels", func(c *Config) { c.Limits.ImagePixels = 1 }, "limits.image_pixels:"},
		{"message bytes", func(c *Config) { c.Limits.MessageBytes = 1 }, "limits.message_bytes:"},
		{"min free", func(c *Config) { c.Store.MinFree = 0 }, "store.min_free:"},
		{"concurrency", func(c *Config) { c.Models.Concurrency = -1 }, "models.concurrency:"},
		{"sweep", func(c *Config) { c.SweepEvery = 0 }, "sweep_every:"},
		{"drain", func(c *Config) { c.DrainTimeout = -1 }, "drain_timeout:"},
	} {
		c := production()
		tc.change(&c)
		err := c.Validate()
		if tc.want == "" && err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if tc.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: want %q, got %v", tc.name, tc.want, err)
		}
	}
	var c Config
	if err := c.Validate(); strings.Count(err.Error(), "\n") < 8 {
		t.Errorf("the zero Config should break many rules at once: %v", err)
	}
}

func TestReachOf(t *testing.T) {
	for host, want := range map[string]Reach{
		"127.0.0.1": Loopback, "127.9.9.9": Loopback, "::1": Loopback, "localhost": Loopback, "::ffff:127.0.0.1": Loopback,
		"10.0.0.1": Private, "192.168.3.4": Private, "172.16.0.9": Private, "fd00::1": Private, "fe80::1": Private,
		"": Public, "0.0.0.0": Public, "::": Public, "8.8.8.8": Public, "172.32.0.1": Public, "gate.example": Public, "localhost.example": Public,
	} {
		if got := ReachOf(host); got != want {
			t.Errorf("%q: got %d, want %d", host, got, want)
		}
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]ByteSize{"0": 0, "4096": 4096, "1KiB": 1024, " 16 MiB ": 16 << 20, "2GiB": 2 << 30, "7B": 7} {
		var b ByteSize
		if err := b.Set(text); err != nil || b != want {
			t.Errorf("%q: %d, %v", text, b, err)
		}
		var again ByteSize
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%q printed as %q reads as %d, %v", text, b.String(), again, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5MiB", "99999999999GiB", "MiB", "1e9"} {
		var b ByteSize
		if err := b.Set(text); err == nil {
			t.Errorf("%q was taken as %d", text, b)
		}
	}
}

func TestRootKeyInside(t *testing.T) {
	for key, want := range map[string]bool{"/d/root.key": true, "/d/keys/root.key": true, "/root.key": false, "/dd/root.key": false, "/d/../k": false} {
		c := Config{DataDir: "/d", RootKeyFile: key}
		if got := c.RootKeyInside(); got != want {
			t.Errorf("%s: %v", key, got)
		}
	}
}

func TestDevCompletes(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/cache")
	cfg, _, err := load(t, "", nil, []string{"--dev"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.DataDir != "/cache/menshen/dev" || cfg.RootKeyFile != "/cache/menshen/dev/root.key" {
		t.Errorf("got %q, %q", cfg.DataDir, cfg.RootKeyFile)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
