package kms

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
)

func TestOpenRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"awskms://key":    "built in is hashivault://",
		"base64key://c2":  "built in is",
		"":                "built in is",
		"hashivault":      "built in is",
		"://secret-token": "does not parse",
	} {
		_, err := Open(t.Context(), url)
		if !errors.Is(err, ErrURL) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// TestVault drives a whole keyring with a root that is sealed by a server that
// speaks the part of Vault's transit API that is used.
func TestVault(t *testing.T) {
	var down bool
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down || r.Header.Get("X-Vault-Token") != "s.test" {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"errors":["permission denied for secret s.test"]}`)
			return
		}
		var in map[string]string
		json.NewDecoder(r.Body).Decode(&in)
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		mark := "vault:v1:" + name + ":"
		out := map[string]string{}
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/transit/encrypt/"):
			out["ciphertext"] = mark + in["plaintext"]
		case strings.HasPrefix(r.URL.Path, "/v1/transit/decrypt/") && strings.HasPrefix(in["ciphertext"], mark):
			out["plaintext"] = strings.TrimPrefix(in["ciphertext"], mark)
		default:
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"data": out})
	}))
	defer vault.Close()
	t.Setenv("VAULT_SERVER_URL", vault.URL)
	t.Setenv("VAULT_SERVER_TOKEN", "s.test")
	wholeKeyring(t, "hashivault://menshen", "hashivault://other")

	k, err := Open(t.Context(), "hashivault://menshen")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	down = true
	if _, err := k.Encrypt(t.Context(), []byte("root")); err == nil || strings.Contains(err.Error(), "s.test") {
		t.Errorf("refused: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Decrypt(ctx, []byte("vault:v1:x")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func wholeKeyring(t *testing.T, url, other string) {
	t.Helper()
	k, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	dir := t.TempDir()
	rootFile, ring := filepath.Join(dir, "root.key"), filepath.Join(dir, "keyring")
	root, err := keyring.CreateRoot(rootFile, k)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.Open(ring, root, keyring.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	hall := scope.Ref{Tenant: "fair", Scope: "hall"}
	if err := errors.Join(keys.Create(hall), keys.Create(scope.Ref{Tenant: "fair", Scope: "hall-b"}), keys.Destroy(hall), keys.Close()); err != nil {
		t.Fatal(err)
	}
	if root, err = keyring.LoadRoot(rootFile, k); err != nil {
		t.Fatal(err)
	}
	if keys, err = keyring.Open(ring, root, keyring.Options{}); err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	if n := len(keys.List()); n != 1 {
		t.Errorf("%d scopes", n)
	}
	wrong, err := Open(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if _, err := keyring.LoadRoot(rootFile, wrong); !errors.Is(err, keyring.ErrKeeper) {
		t.Errorf("another key opens it: %v", err)
	}
}
