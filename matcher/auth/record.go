package auth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// recordVersion is the version of the JSON that is stored. The store seals it.
const recordVersion = 1

type tenantRecord struct {
	Version     int       `json:"v"`
	ID          string    `json:"id"`
	DisplayName string    `json:"display_name,omitempty"`
	CreateTime  time.Time `json:"create_time"`
	DeleteTime  time.Time `json:"delete_time,omitzero"`
}

type credentialRecord struct {
	Version     int       `json:"v"`
	ID          string    `json:"id"`
	Role        Role      `json:"role"`
	Tenant      string    `json:"tenant,omitempty"`
	Scopes      []string  `json:"scopes,omitempty"`
	DisplayName string    `json:"display_name,omitempty"`
	CreateTime  time.Time `json:"create_time"`
	ExpireTime  time.Time `json:"expire_time,omitzero"`
	RevokeTime  time.Time `json:"revoke_time,omitzero"`
	Digest      []byte    `json:"sha256,omitempty"` // of the secret; none where a certificate is enough
	Certificate string    `json:"client_certificate,omitempty"`
}

func tenantKey(id scope.TenantID) store.Key {
	return store.Key{Kind: store.KindTenant, Ref: scope.Ref{Tenant: id}}
}

func credentialKey(tenant scope.TenantID, id CredentialID) store.Key {
	return store.Key{Kind: store.KindCredential, Ref: scope.Ref{Tenant: tenant}, ID: string(id)}
}

// requestKey is where the record of an idempotent call is kept. Request ids of
// different tenants never meet: the tenant of the caller is part of the key.
func requestKey(tenant scope.TenantID, r idempotency.Request) store.Key {
	return store.Key{Kind: store.KindRequest, ID: r.Key("credentials of " + string(tenant))}
}

func encodeTenant(t Tenant) (store.Record, error) {
	b, err := json.Marshal(tenantRecord{Version: recordVersion, ID: string(t.ID), DisplayName: t.DisplayName, CreateTime: t.CreateTime, DeleteTime: t.DeleteTime})
	return store.Record{Key: tenantKey(t.ID), Value: b}, err
}

func decodeTenant(key store.Key, value []byte) (Tenant, error) {
	var r tenantRecord
	if err := decodeStrictly(value, &r); err != nil {
		return Tenant{}, fmt.Errorf("%w: %s: %w", ErrRecord, key, err)
	}
	t := Tenant{ID: scope.TenantID(r.ID), DisplayName: r.DisplayName, CreateTime: r.CreateTime, DeleteTime: r.DeleteTime}
	if r.Version != recordVersion || tenantKey(t.ID) != key || t.ID.Validate() != nil {
		return Tenant{}, fmt.Errorf("%w: %s, version %d", ErrRecord, key, r.Version)
	}
	return t, nil
}

func encodeCredential(e *entry) (store.Record, error) {
	r := credentialRecord{
		Version: recordVersion, ID: string(e.ID), Role: e.Role, Tenant: string(e.Tenant), DisplayName: e.DisplayName,
		CreateTime: e.CreateTime, ExpireTime: e.ExpireTime, RevokeTime: e.RevokeTime, Certificate: string(e.ClientCertificate),
	}
	if e.hasKey {
		r.Digest = e.secret[:]
	}
	for _, id := range e.Scopes {
		r.Scopes = append(r.Scopes, string(id))
	}
	b, err := json.Marshal(r)
	return store.Record{Key: credentialKey(e.Tenant, e.ID), Value: b}, err
}

// decodeCredential reads a stored credential and refuses whatever Create would
// not have made: a damaged record must not become a wider credential.
func decodeCredential(key store.Key, value []byte) (*entry, error) {
	var r credentialRecord
	if err := decodeStrictly(value, &r); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrRecord, key, err)
	}
	e := &entry{Credential: Credential{
		ID: CredentialID(r.ID), Role: r.Role, Tenant: scope.TenantID(r.Tenant), DisplayName: r.DisplayName,
		CreateTime: r.CreateTime, ExpireTime: r.ExpireTime, RevokeTime: r.RevokeTime, ClientCertificate: Identity(r.Certificate),
	}, hasKey: r.Digest != nil}
	for _, id := range r.Scopes {
		e.Scopes = append(e.Scopes, scope.ScopeID(id))
	}
	if r.Version != recordVersion || credentialKey(e.Tenant, e.ID) != key || !e.ID.Valid() || !e.Role.Valid() || e.hasKey && len(r.Digest) != len(e.secret) || !e.hasKey && e.ClientCertificate == "" ||
		e.Role.OfTenant() != (e.Tenant.Validate() == nil) || e.Role.OfScopes() != (len(e.Scopes) > 0) || !slices.IsSorted(e.Scopes) {
		return nil, fmt.Errorf("%w: %s, version %d", ErrRecord, key, r.Version)
	}
	if id, err := ParseIdentity(r.Certificate); r.Certificate != "" && (err != nil || id != e.ClientCertificate) {
		return nil, fmt.Errorf("%w: %s, its client certificate", ErrRecord, key)
	}
	copy(e.secret[:], r.Digest)
	return e, nil
}

func decodeStrictly(value []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		// The text of a JSON error can quote the record.
		return fmt.Errorf("not the JSON of this version (%T)", err)
	}
	if d.More() {
		return fmt.Errorf("bytes after the record")
	}
	return nil
}
