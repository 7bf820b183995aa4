// Package kms opens a key management service that seals the root key, named by a
// URL as gocloud.dev/secrets has them.
//
// Built in is hashivault://KEY, the transit engine of HashiCorp Vault and of
// OpenBao; VAULT_SERVER_URL and VAULT_SERVER_TOKEN say where it is. The services
// of the large clouds are left out: each brings more code than the rest of
// Menshen together.
//
// It promises that what the service says gets into no error: it may quote a
// token.
package kms

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"gocloud.dev/secrets"
	_ "gocloud.dev/secrets/hashivault" // hashivault://

	"github.com/menshen-io/menshen/index/keyring"
)

// ErrURL: the URL names no key management service that is built in.
var ErrURL = errors.New("the URL of the key management service")

// scheme begins the URLs that Open knows.
const scheme = "hashivault"

// Keeper is a key in a key management service. Safe for concurrent use; Close
// it when done.
type Keeper struct{ k *secrets.Keeper }

var _ keyring.Keeper = (*Keeper)(nil)

// Open connects lazily: the first Encrypt or Decrypt shows whether the service
// answers. Error: ErrURL.
func Open(ctx context.Context, raw string) (*Keeper, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w does not parse; it looks like %s://NAME-OF-THE-KEY", ErrURL, scheme)
	}
	if u.Scheme != scheme {
		return nil, fmt.Errorf("%w begins with %.40q; built in is %s://NAME-OF-THE-KEY", ErrURL, u.Scheme+"://", scheme)
	}
	k, err := secrets.OpenKeeper(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("%w cannot be used: check the key's name and the variables VAULT_SERVER_URL and VAULT_SERVER_TOKEN", ErrURL)
	}
	return &Keeper{k}, nil
}

// errService stands for what the service said, which may quote what it was sent.
var errService = errors.New("it refused or did not answer; look into its own log, and check its address, its token and the key's name")

// Encrypt seals plain under the service's key.
func (k *Keeper) Encrypt(ctx context.Context, plain []byte) ([]byte, error) {
	sealed, err := k.k.Encrypt(ctx, plain)
	return sealed, said(ctx, err)
}

// Decrypt opens what Encrypt sealed.
func (k *Keeper) Decrypt(ctx context.Context, sealed []byte) ([]byte, error) {
	plain, err := k.k.Decrypt(ctx, sealed)
	return plain, said(ctx, err)
}

func said(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("it did not answer in time: %w", ctx.Err())
	}
	return errService
}

// Close releases the connection.
func (k *Keeper) Close() error { return k.k.Close() }
