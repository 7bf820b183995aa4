// Package client connects the operator commands to a server: address, TLS and
// the API key, and what to print when a call fails.
//
// It promises: an API key is never taken from the command line, where every
// user of the machine could read it; it is sent in plain text to this machine
// only; it stands in no error. Calls that a busy server refused, and reading ones
// that met a server going away, are repeated; so are changes that carry a
// request id (--request-id).
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
)

// Errors before a call.
var (
	// ErrUsage: flags that do not go together, or a missing one.
	ErrUsage = errors.New("usage")
	// ErrKey: the API key cannot be read.
	ErrKey = errors.New("no usable API key")
)

// Options says how to reach a server.
type Options struct {
	Server     string
	KeyFile    string // "-" reads standard input
	Insecure   bool
	TLS        bool
	TLSCA      string
	TLSCert    string
	TLSKey     string
	ServerName string
	Timeout    time.Duration
}

// AddFlags adds the connection flags to flags, with the environment's values as
// defaults.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	server := os.Getenv("MENSHEN_SERVER")
	if server == "" {
		server = config.DefaultListen
	}
	noTLS, _ := strconv.ParseBool(os.Getenv("MENSHEN_INSECURE"))
	flags.StringVar(&o.Server, "server", server, "address of the server, host:port [MENSHEN_SERVER]")
	flags.StringVar(&o.KeyFile, "api-key-file", "", "file of the API key, - for standard input [MENSHEN_API_KEY, MENSHEN_API_KEY_FILE; else the admin key of a local --dev server]")
	flags.BoolVar(&o.Insecure, "insecure", noTLS, "plain text; this machine only, where it is the default [MENSHEN_INSECURE]")
	flags.BoolVar(&o.TLS, "tls", false, "TLS with the system's authorities; the default for other machines")
	flags.StringVar(&o.TLSCA, "tls-ca", os.Getenv("MENSHEN_TLS_CA"), "TLS with the authorities of this PEM file [MENSHEN_TLS_CA]")
	flags.StringVar(&o.TLSCert, "tls-cert", os.Getenv("MENSHEN_TLS_CERT"), "PEM file of a client certificate; without an API key, the caller is known by it [MENSHEN_TLS_CERT]")
	flags.StringVar(&o.TLSKey, "tls-key", os.Getenv("MENSHEN_TLS_KEY"), "PEM file of the client certificate's key [MENSHEN_TLS_KEY]")
	flags.StringVar(&o.ServerName, "tls-server-name", "", "name in the server's certificate, where it is not the host of --server")
	flags.DurationVar(&o.Timeout, "timeout", 60*time.Second, "how long a call may take")
}

// Dial makes a connection; nothing is sent yet. stdin is read only for
// --api-key-file -, and warnings go to stderr.
func (o *Options) Dial(stdin io.Reader, stderr io.Writer) (*grpc.ClientConn, error) {
	host, _, err := net.SplitHostPort(o.Server)
	if err != nil || host == "" {
		return nil, fmt.Errorf("%w: --server %q is not host:port, such as %s", ErrUsage, o.Server, config.DefaultListen)
	}
	if o.Timeout <= 0 {
		return nil, fmt.Errorf("%w: --timeout %s leaves no time for a call", ErrUsage, o.Timeout)
	}
	transport, plain, err := o.transport(host)
	if err != nil {
		return nil, err
	}
	key, err := o.key(host, stdin, stderr)
	if err != nil {
		return nil, err
	}
	var bearer credentials.PerRPCCredentials // none where the certificate says who calls
	if key != "" {
		bearer = BearerKey(key, plain)
	}
	return Connect(o.Server, transport, bearer, grpc.WithUnaryInterceptor(o.bound))
}

// bound gives every call its time. A person's answer to a question between two
// calls does not count.
func (o *Options) bound(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	return call(ctx, method, req, reply, conn, opts...)
}

// Connect makes a connection with the given security; key may be nil. The size of
// an answer is not limited below what the server may send.
func Connect(address string, transport credentials.TransportCredentials, key credentials.PerRPCCredentials, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	if key != nil {
		opts = append(opts, grpc.WithPerRPCCredentials(key))
	}
	return grpc.NewClient("passthrough:///"+address, append([]grpc.DialOption{
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithConnectParams(comeBack),
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("menshen-cli"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)),
	}, append(opts, grpc.WithChainUnaryInterceptor(retry))...)...)
}

// BearerKey sends an API key with every call. plain permits that without TLS.
func BearerKey(key string, plain bool) credentials.PerRPCCredentials {
	return bearer{header: "Bearer " + key, plain: plain}
}

type bearer struct {
	header string
	plain  bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": b.header}, nil
}

func (b bearer) RequireTransportSecurity() bool { return !b.plain }

// String keeps the key out of logs and panics.
func (b bearer) String() string { return "bearer key (hidden)" }

// GoString keeps the key out of logs and panics.
func (b bearer) GoString() string { return b.String() }
