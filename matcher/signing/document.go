package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxDocument is the largest document that Parse reads, in bytes.
const MaxDocument = 1 << 20

type document struct {
	Type      string          `json:"type"`
	Statement json.RawMessage `json:"statement"`
	Signature signature       `json:"signature"`
}

type signature struct {
	KeyID KeyID  `json:"key_id"`
	Value string `json:"value"`
}

// signed composes the bytes that are signed: no two of (type, key, statement)
// give the same ones.
func signed(typ string, id KeyID, statement []byte) []byte {
	return fmt.Appendf(nil, "menshen-signed-v1 %d %s %d %s %d %s", len(typ), typ, len(id), id, len(statement), statement)
}

// Sign writes the statement, a struct that encoding/json marshals, as a signed
// document. The type names the statement's meaning and version, such as
// "menshen.receipt.v1". Times in the statement must be UTC. Errors: ErrWiped, or that
// the statement does not survive being written and read.
func Sign(key *Key, typ string, statement any) ([]byte, error) {
	body, err := json.Marshal(statement)
	if err != nil {
		return nil, fmt.Errorf("write the statement to be signed: %w", err)
	}
	id := key.Public().ID()
	value, err := key.sign(signed(typ, id, body))
	if err != nil {
		return nil, err
	}
	return document{typ, body, signature{id, base64.StdEncoding.EncodeToString(value)}}.render()
}

func (d document) render() ([]byte, error) {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the signed document: %w", err)
	}
	return append(b, '\n'), nil
}

// Parse reads a document of one type into statement, a pointer to the struct
// that Sign was given, and verifies it. It returns the key that signed. When it
// fails, what statement holds means nothing. Errors: ErrForm, ErrType,
// ErrUnknownKey, ErrSignature.
func Parse(doc []byte, typ string, keys PublicKeys, statement any) (KeyID, error) {
	if len(doc) > MaxDocument {
		return "", fmt.Errorf("%w: it has %d bytes, more than %d", ErrForm, len(doc), MaxDocument)
	}
	var d document
	if err := strictly(doc, &d); err != nil {
		return "", err
	}
	if d.Type != typ {
		return "", fmt.Errorf("%w: it says %.60q; this version reads %q", ErrType, d.Type, typ)
	}
	key, ok := keys[d.Signature.KeyID]
	if !ok || key == (PublicKey{}) {
		return "", fmt.Errorf("%w: %.60q; give the public key that was in use when it was signed", ErrUnknownKey, d.Signature.KeyID)
	}
	if err := strictly(d.Statement, statement); err != nil {
		return "", err
	}
	body, err := json.Marshal(statement)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrForm, err)
	}
	value, err := base64.StdEncoding.DecodeString(d.Signature.Value)
	if err != nil || !ed25519.Verify(key.b[:], signed(typ, d.Signature.KeyID, body), value) {
		return "", fmt.Errorf("%w: the document was altered, or key %s did not sign it", ErrSignature, d.Signature.KeyID)
	}
	d.Statement, d.Signature.Value = body, base64.StdEncoding.EncodeToString(value)
	if again, err := d.render(); err != nil || !bytes.Equal(again, doc) {
		return "", fmt.Errorf("%w: its content holds, but it is not spelled as it was signed; use the file as it was handed out", ErrForm)
	}
	return d.Signature.KeyID, nil
}

// strictly decodes one JSON value and nothing after it, with no unknown field.
func strictly(b []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its end", ErrForm)
	}
	return nil
}
