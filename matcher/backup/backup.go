// Package backup encrypts backups to those who may read them, with age
// (age-encryption.org/v1), and opens them for their owners.
//
// The server knows recipients alone, which are public: what has left it cannot
// be read by whoever finds it, nor by the server. It holds sealed records inside, so
// that reading a backup needs its identity, and using one the keyring and root key
// of the server too. Passphrases are not taken: they would have to be sent to the
// server.
//
// age authenticates every 64 KiB and the end, so that an altered or shortened file
// does not open. It does not say who encrypted it; the seal in the backup does
// (index/store).
package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
)

// MaxRecipients bounds the recipients of a backup; each costs a header line and
// a key exchange.
const MaxRecipients = 32

var (
	// ErrRecipient: a recipient is none, or there are none or too many.
	ErrRecipient = errors.New("recipient")
	// ErrIdentity: the file holds no identity that can be used.
	ErrIdentity = errors.New("identity")
	// ErrEncrypted: the file is no encrypted backup, or is not meant for the identity.
	ErrEncrypted = errors.New("the backup does not open")
)

// Encrypt returns a writer to w that only the recipients can read: "age1..."
// of age-keygen, or the line of an SSH public key (ssh-ed25519, ssh-rsa). Close
// finishes what was written and does not close w. Memory: 64 KiB. Errors:
// ErrRecipient, that of w.
func Encrypt(w io.Writer, recipients []string) (io.WriteCloser, error) {
	if len(recipients) == 0 || len(recipients) > MaxRecipients {
		return nil, fmt.Errorf("%w: 1 to %d are needed, %d were given; make one with age-keygen", ErrRecipient, MaxRecipients, len(recipients))
	}
	parsed := make([]age.Recipient, 0, len(recipients))
	for _, text := range recipients {
		r, err := parseRecipient(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, r)
	}
	out, err := age.Encrypt(w, parsed...)
	if err != nil {
		return nil, fmt.Errorf("encrypt the backup: %w", err)
	}
	return out, nil
}

func parseRecipient(text string) (age.Recipient, error) {
	if strings.HasPrefix(text, "AGE-SECRET-KEY-") || strings.Contains(text, "PRIVATE KEY") {
		return nil, fmt.Errorf("%w: that is a secret identity; give its public recipient, which age-keygen -y prints", ErrRecipient)
	}
	if strings.HasPrefix(text, "ssh-") {
		r, err := agessh.ParseRecipient(text)
		if err != nil {
			return nil, fmt.Errorf("%w: not an SSH public key of the kinds ssh-ed25519 and ssh-rsa", ErrRecipient)
		}
		return r, nil
	}
	if parsed, err := age.ParseRecipients(strings.NewReader(text)); err == nil && len(parsed) == 1 {
		return parsed[0], nil
	}
	return nil, fmt.Errorf("%w: %.20q is neither \"age1...\" nor an SSH public key", ErrRecipient, text)
}

// maxIdentity bounds an identity file.
const maxIdentity = 1 << 20

// Decrypt returns what was encrypted, for the identities of a file: one of
// age-keygen, or an SSH private key without a passphrase. Reading fails where the
// file was altered or cut off. Errors: ErrIdentity, ErrEncrypted.
func Decrypt(r io.Reader, identityFile string) (io.Reader, error) {
	ids, err := loadIdentities(identityFile)
	if err != nil {
		return nil, err
	}
	plain, err := age.Decrypt(r, ids...)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, fmt.Errorf("%w: it is not for the identity in %s; use that of one of its recipients", ErrEncrypted, identityFile)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w; use another copy of it", ErrEncrypted, err)
	}
	return plain, nil
}

func loadIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxIdentity))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	defer clear(text)
	if strings.Contains(string(text), "PRIVATE KEY-----") {
		id, err := agessh.ParseIdentity(text)
		if err != nil { // whose text may tell of the key
			return nil, fmt.Errorf("%w: %s is an SSH key that cannot be used; it must be ed25519 or RSA and without a passphrase", ErrIdentity, path)
		}
		return []age.Identity{id}, nil
	}
	ids, err := age.ParseIdentities(strings.NewReader(string(text)))
	if err != nil || len(ids) == 0 {
		return nil, fmt.Errorf("%w: %s holds no identity; age-keygen makes one", ErrIdentity, path)
	}
	return ids, nil
}
