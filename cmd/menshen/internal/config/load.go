package config

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// Errors of reading a configuration.
var (
	// ErrUnknownKey: a key or variable that is not in the table of settings.
	ErrUnknownKey = errors.New("unknown setting")
	// ErrBadValue: a value that its setting cannot hold.
	ErrBadValue = errors.New("bad value")
	// ErrFile: the configuration file cannot be read or is not YAML.
	ErrFile = errors.New("cannot read the configuration file")
)

// Loader merges the sources of a Config: defaults, then the YAML file, then the
// environment, then the flags that were given.
type Loader struct {
	cfg   Config
	flags *pflag.FlagSet
	from  map[string]string // key -> source, of the settings that were set
}

// NewLoader adds a flag for every setting to flags. Parse them before Load.
func NewLoader(flags *pflag.FlagSet) *Loader {
	l := &Loader{cfg: Default(), flags: flags, from: map[string]string{}}
	for _, s := range Settings() {
		s.bind(flags, &l.cfg, s.Flag, s.Usage+" ["+s.Env()+"]")
	}
	return l
}

// Load reads the file at path ("" for none) and the environment, given in the
// form of os.Environ, and completes what follows from other settings. All
// unknown keys and bad values of all sources come in one error. The result is
// not validated.
func (l *Loader) Load(path string, environ []string) (Config, error) {
	var errs []error
	given := map[string]bool{}
	for _, s := range Settings() {
		if l.flags.Changed(s.Flag) {
			given[s.Key] = true
			l.from[s.Key] = "flag --" + s.Flag
		}
	}
	if path != "" {
		k := koanf.New(".")
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return Config{}, fmt.Errorf("%w: %v", ErrFile, err)
		}
		errs = append(errs, l.merge(k, path, func(s Setting) string { return s.Key }, given))
	}
	k := koanf.New(".")
	unknown, err := loadEnviron(k, environ)
	if err != nil {
		return Config{}, fmt.Errorf("%w: environment: %v", ErrBadValue, err)
	}
	errs = append(errs, unknown...)
	errs = append(errs, l.merge(k, "environment", Setting.Env, given))
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	cfg := l.cfg
	if err := cfg.Complete(); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// merge writes the values of one source into the Config, except where a flag
// was given. name spells a setting as that source does.
func (l *Loader) merge(k *koanf.Koanf, source string, name func(Setting) string, given map[string]bool) error {
	var errs []error
	known := map[string]Setting{}
	for _, s := range Settings() {
		known[s.Key] = s
	}
	keys := k.Keys()
	slices.Sort(keys)
	for _, key := range keys {
		s, ok := known[key]
		if !ok {
			errs = append(errs, fmt.Errorf("%w: %s: %q%s", ErrUnknownKey, source, key, suggestKey(key)))
			continue
		}
		value := k.Get(key)
		if value == nil {
			errs = append(errs, fmt.Errorf("%w: %s: %s has no value; give one or remove the line", ErrBadValue, source, name(s)))
			continue
		}
		// Parse it even where a flag wins, so that a bad value is reported
		// whatever else was said.
		probe := Default()
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		s.bind(fs, &probe, s.Flag, s.Usage)
		if err := fs.Lookup(s.Flag).Value.Set(fmt.Sprint(value)); err != nil {
			errs = append(errs, fmt.Errorf("%w: %s: %s: %v", ErrBadValue, source, name(s), err))
			continue
		}
		if given[key] {
			continue
		}
		if err := l.flags.Lookup(s.Flag).Value.Set(fmt.Sprint(value)); err != nil {
			errs = append(errs, fmt.Errorf("%w: %s: %s: %v", ErrBadValue, source, name(s), err))
			continue
		}
		l.from[key] = source
	}
	return errors.Join(errs...)
}

// loadEnviron puts the settings of the environment into k. A MENSHEN_ variable
// that is nobody's is unknown: most likely a misspelt setting.
func loadEnviron(k *koanf.Koanf, environ []string) (unknown []error, err error) {
	keys := map[string]string{}
	for _, s := range Settings() {
		keys[s.Env()] = s.Key
	}
	err = k.Load(env.Provider(".", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key, ok := keys[name]
			if !ok && !foreign(name) {
				unknown = append(unknown, fmt.Errorf("%w: environment: %s%s", ErrUnknownKey, name, suggestEnv(name)))
			}
			return key, value // an empty key is left out
		},
	}), nil)
	return unknown, err
}

// foreign reports whether a MENSHEN_ variable belongs to something other than
// the server's configuration: the client commands, the model runtime, or the
// links that container platforms add for a service that is called menshen.
func foreign(name string) bool {
	switch name {
	case "MENSHEN_SERVER", "MENSHEN_API_KEY", "MENSHEN_API_KEY_FILE", "MENSHEN_TENANT",
		"MENSHEN_TLS_CA", "MENSHEN_TLS_CERT", "MENSHEN_TLS_KEY", "MENSHEN_INSECURE", "MENSHEN_ONNXRUNTIME", "MENSHEN_FIXTURES",
		"MENSHEN_CONFIG", "MENSHEN_PORT":
		return true
	}
	return strings.HasPrefix(name, "MENSHEN_SERVICE_") || strings.HasPrefix(name, "MENSHEN_PORT_")
}

// Print writes the configuration as a YAML file that Load accepts, with the
// source of every setting that is not a default.
func (l *Loader) Print(w io.Writer, cfg Config) error {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	section := ""
	for _, s := range Settings() {
		s.bind(fs, &cfg, s.Flag, s.Usage)
		value := fs.Lookup(s.Flag).Value
		written := value.String()
		if value.Type() == "string" {
			written = fmt.Sprintf("%q", written)
		}
		indent, key := "", s.Key
		if group, rest, ok := strings.Cut(s.Key, "."); ok {
			if group != section {
				section = group
				if _, err := fmt.Fprintf(w, "%s:\n", group); err != nil {
					return err
				}
			}
			indent, key = "  ", rest
		}
		source := ""
		if from := l.from[s.Key]; from != "" {
			source = "  # " + from
		}
		if _, err := fmt.Fprintf(w, "%s%s: %s%s\n", indent, key, written, source); err != nil {
			return err
		}
	}
	return nil
}
