package target

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// ErrAddress: an address that a benchmark does not send to; the text says why.
var ErrAddress = errors.New("not an address to measure")

// Dialer connects to one server.
type Dialer struct {
	Address   string
	transport credentials.TransportCredentials
}

// NewDialer checks the address, host:port: a name or an address outside loopback
// and private networks is refused unless remote is set. Connections to other
// machines use TLS, with the authorities of the PEM file ca where one is named.
// Nothing is sent yet. Error: ErrAddress.
func NewDialer(address, ca string, remote bool) (*Dialer, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not host:port", ErrAddress, address)
	}
	ip, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && ip.Unmap().IsLoopback()
	private := err == nil && (ip.Unmap().IsPrivate() || ip.Unmap().IsLinkLocalUnicast())
	if !loopback && !private && !remote {
		return nil, fmt.Errorf("%w: %s is neither on this machine nor an address of a private network: load is sent elsewhere only with --allow-remote, and only to servers of your own", ErrAddress, host)
	}
	d := &Dialer{Address: address, transport: insecure.NewCredentials()}
	if loopback && ca == "" {
		return d, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("%w: the authorities: %v", ErrAddress, err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: %s holds no PEM certificate", ErrAddress, ca)
		}
	}
	d.transport = credentials.NewTLS(cfg)
	return d, nil
}

// Dial makes a connection of its own; it is opened by the first call.
func (d *Dialer) Dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+d.Address,
		grpc.WithTransportCredentials(d.transport),
		grpc.WithUserAgent("menshen-bench"),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	)
}

// Connect makes a connection that speaks no protocol yet, for a benchmark that
// writes HTTP/2 itself. The caller closes it.
func (d *Dialer) Connect(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", d.Address)
	if err != nil {
		return nil, err
	}
	secured, _, err := d.transport.ClientHandshake(ctx, d.Address, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// WithKey gives the calls of a context an API key. It is done once for many
// calls: credentials on the connection would be written anew for every call.
func WithKey(ctx context.Context, key string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", "Bearer "+key))
}
