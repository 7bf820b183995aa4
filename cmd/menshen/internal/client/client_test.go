package client

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const testKey = "mk_test_c2VjcmV0"

func keyFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

// noKeys removes all keys from the environment of the test.
func noKeys(t *testing.T) {
	t.Setenv("MENSHEN_API_KEY", "")
	t.Setenv("MENSHEN_API_KEY_FILE", "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
}

func TestKeySources(t *testing.T) {
	noKeys(t)
	var warnings strings.Builder
	find := func(o Options, host, stdin string) (string, error) {
		warnings.Reset()
		return o.key(host, strings.NewReader(stdin), &warnings)
	}
	if _, err := find(Options{}, "127.0.0.1", ""); !errors.Is(err, ErrKey) {
		t.Errorf("without any key: %v", err)
	}

	dev := filepath.Join(os.Getenv("XDG_CACHE_HOME"), "menshen", "dev")
	if err := os.MkdirAll(dev, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dev, "admin.key"), []byte("from-dev\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err := find(Options{}, "127.0.0.1", ""); key != "from-dev" || err != nil {
		t.Errorf("dev key: %q, %v", key, err)
	}
	if _, err := find(Options{}, "gate.example", ""); !errors.Is(err, ErrKey) {
		t.Errorf("the dev key must not leave this machine: %v", err)
	}
	t.Setenv("MENSHEN_API_KEY_FILE", keyFile(t, "from-env-file", 0o600))
	if key, err := find(Options{}, "127.0.0.1", ""); key != "from-env-file" || err != nil {
		t.Errorf("env file: %q, %v", key, err)
	}
	t.Setenv("MENSHEN_API_KEY", "from-env")
	if key, err := find(Options{}, "127.0.0.1", ""); key != "from-env" || err != nil {
		t.Errorf("env: %q, %v", key, err)
	}
	if key, err := find(Options{KeyFile: "-"}, "127.0.0.1", " "+testKey+"\r\n"); key != testKey || err != nil {
		t.Errorf("stdin: %q, %v", key, err)
	}
	if key, err := find(Options{KeyFile: keyFile(t, testKey, 0o600)}, "127.0.0.1", ""); key != testKey || err != nil || warnings.Len() > 0 {
		t.Errorf("flag: %q, %v, %s", key, err, warnings.String())
	}
	if _, err := find(Options{KeyFile: keyFile(t, testKey, 0o644)}, "127.0.0.1", ""); err != nil || !strings.Contains(warnings.String(), "chmod 600") {
		t.Errorf("no warning about a readable key: %v, %q", err, warnings.String())
	}
}

func TestBadKeysAreRefusedWithoutBeingShown(t *testing.T) {
	noKeys(t)
	for name, text := range map[string]string{
		"empty":     " \n",
		"two lines": testKey + "\n" + testKey,
		"binary":    testKey + "\x00",
		"huge":      strings.Repeat(testKey, 1000),
	} {
		_, err := (&Options{KeyFile: keyFile(t, text, 0o600)}).key("127.0.0.1", nil, os.Stderr)
		if !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: the key is in the error: %v", name, err)
		}
	}
	b := BearerKey(testKey, true)
	if text := fmt.Sprintf("%v %+v %#v %s", b, b, b, b); strings.Contains(text, "c2VjcmV0") {
		t.Errorf("the key is printed: %s", text)
	}
}

func TestTransport(t *testing.T) {
	notPEM := keyFile(t, "x", 0o600)
	for _, tc := range []struct {
		host  string
		opt   Options
		plain bool
		want  string // part of the error; "" for none
	}{
		{"127.0.0.1", Options{}, true, ""},
		{"localhost", Options{Insecure: true}, true, ""},
		{"127.0.0.1", Options{TLS: true}, false, ""},
		{"gate.example", Options{}, false, ""},
		{"gate.example", Options{Insecure: true}, false, "this machine only"},
		{"10.0.0.1", Options{Insecure: true}, false, "this machine only"},
		{"127.0.0.1", Options{Insecure: true, TLS: true}, false, "exclude each other"},
		{"gate.example", Options{TLSCert: "x"}, false, "belong together"},
		{"gate.example", Options{TLSCA: notPEM}, false, "no PEM certificate"},
		{"gate.example", Options{TLSCA: "/nowhere/ca.pem"}, false, "no such file"},
		{"gate.example", Options{TLSCert: notPEM, TLSKey: notPEM}, false, "--tls-cert and --tls-key"},
	} {
		_, plain, err := tc.opt.transport(tc.host)
		if tc.want == "" && (err != nil || plain != tc.plain) {
			t.Errorf("%s %+v: plain %v, %v", tc.host, tc.opt, plain, err)
		}
		if tc.want != "" && (!errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s %+v: want %q, got %v", tc.host, tc.opt, tc.want, err)
		}
		if BearerKey("k", plain).RequireTransportSecurity() == plain {
			t.Errorf("%s: the key may travel without TLS", tc.host)
		}
	}
}

func TestServerFlagMustBeAnAddress(t *testing.T) {
	var o Options
	o.AddFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
	for _, server := range []string{"", "gate.example", ":7443"} {
		o.Server = server
		if _, err := o.Dial(nil, os.Stderr); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: %v", server, err)
		}
	}
}

func TestExplain(t *testing.T) {
	st, err := status.New(codes.InvalidArgument, "the request is not valid").WithDetails(
		&errdetails.ErrorInfo{Reason: "INVALID", Domain: "menshen.io", Metadata: map[string]string{"b": "2", "a": "1"}},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "subject_id", Description: "is empty"}}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	Explain(fmt.Errorf("photo.jpg: %w", st.Err())).WriteText(&out)
	want := "menshen: photo.jpg: the request is not valid (INVALID, InvalidArgument)\n" +
		"  in subject_id: is empty\n  a = 1\n  b = 2\n  try again after 2s\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	Explain(st.Err()).WriteJSON(&out)
	want = `{"error":{"code":"InvalidArgument","reason":"INVALID","message":"the request is not valid",` +
		`"fields":[{"field":"subject_id","text":"is empty"}],"metadata":{"a":"1","b":"2"},"retry_after":"2s"}}` + "\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	Explain(errors.New("plain trouble")).WriteText(&out)
	if out.String() != "menshen: plain trouble\n" {
		t.Errorf("got %q", out.String())
	}
}

func TestFieldsAreNotSaidTwice(t *testing.T) {
	for message, want := range map[string]string{
		"invalid request: consent.reference: is required": "",
		"the image is empty":                              "  in probe\n",
		"something else":                                  "  in probe: the image is empty\n",
	} {
		f := Failure{Message: message, Fields: []Field{{"probe", "the image is empty"}}}
		if want == "" {
			f.Fields = []Field{{"consent.reference", "is required"}}
		}
		var out strings.Builder
		f.WriteText(&out)
		if got := strings.TrimPrefix(out.String(), "menshen: "+message+"\n"); got != want {
			t.Errorf("%q: %q", message, got)
		}
	}
}

func TestNextSteps(t *testing.T) {
	for _, tc := range []struct {
		code codes.Code
		text string
		want string
	}{
		{codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`, "serve --dev"},
		{codes.Unavailable, "authentication handshake failed: tls: first record does not look like a TLS handshake", "leave the TLS options out"},
		{codes.Unavailable, "error reading server preface: EOF", "--tls-ca"},
		{codes.Unavailable, "x509: certificate signed by unknown authority", "--tls-ca FILE"},
		{codes.Unavailable, "x509: certificate is valid for gate.example, not 10.0.0.1", "--tls-server-name"},
		{codes.Unavailable, "x509: certificate has expired or is not yet valid: current time", "renews it"},
		{codes.Unavailable, "remote error: tls: expired certificate", "give a new one"},
		{codes.Unavailable, "remote error: tls: unknown certificate authority", "--tls-client-ca"},
		{codes.Unavailable, `error reading server preface: remote error: tls: certificate required`, "--tls-cert and --tls-key"},
		{codes.Unavailable, "write tcp 127.0.0.1:1->127.0.0.1:2: write: broken pipe", "--tls-cert and --tls-key"},
		{codes.Unavailable, "read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer", "--tls-cert and --tls-key"},
		{codes.Unavailable, "error reading from server: connection reset by peer", "may or may not have been done"},
		{codes.Unavailable, "error reading from server: remote error: tls: certificate required", "--tls-cert and --tls-key"},
		{codes.Unauthenticated, "no", "revoked or expired"},
		{codes.PermissionDenied, "no", "role"},
		{codes.DeadlineExceeded, "no", "--timeout"},
		{codes.Unimplemented, "no", "older"},
		{codes.ResourceExhausted, "grpc: received message larger than max (25000017 vs. 20971520)", "scale them down"},
		{codes.ResourceExhausted, "no", ""},
		{codes.NotFound, "no", ""},
	} {
		got := next(status.New(tc.code, tc.text))
		if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s %q: %q", tc.code, tc.text, got)
		}
	}
}

// A connection that broke, in whatever way, leaves open what was done; one that was
// never made does not.
func TestCut(t *testing.T) {
	for text, cut := range map[string]bool{
		"error reading from server: EOF":                                                                    true,
		"error reading from server: connection reset by peer":                                               true,
		"error reading from server: read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer":      true,
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connection reset"`: false,
		`connection error: desc = "error reading server preface: read: connection reset by peer"`:           false,
	} {
		if Cut(status.Error(codes.Unavailable, text)) != cut {
			t.Errorf("%q: cut is %t", text, !cut)
		}
	}
}

// A server that says why it is unavailable was reached: nothing is said of a
// broken connection.
func TestNoNextStepBesideTheServersOwn(t *testing.T) {
	st, err := status.New(codes.Unavailable, "not wholly erased yet: repeat the call").WithDetails(&errdetails.ErrorInfo{Reason: "NOT_ERASED_YET"})
	if err != nil {
		t.Fatal(err)
	}
	if f := Explain(st.Err()); f.Next != "" || f.Reason != "NOT_ERASED_YET" {
		t.Errorf("%+v", f)
	}
	if f := Explain(status.Error(codes.Unavailable, "EOF")); f.Next == "" {
		t.Errorf("a broken connection: %+v", f)
	}
}
