package auth

import (
	"crypto/rand"
	"encoding/hex"

	"github.com/menshen-io/menshen/index/scope"
)

// CanaryGrants mints two grants for the hidden galleries of the isolation
// canary. Their tenant's id is drawn here, of 128 random bits, so that they
// speak of no scope that anybody has, and nobody can ask for those of one.
func CanaryGrants() (here, there scope.Grant) {
	var id [16]byte
	rand.Read(id[:]) // never fails: crypto/rand
	tenant := scope.TenantID("canary-" + hex.EncodeToString(id[:]))
	uses := scope.UseVerify | scope.UseIdentify
	return scope.Mint(scope.Ref{Tenant: tenant, Scope: "here"}, uses, "canary"),
		scope.Mint(scope.Ref{Tenant: tenant, Scope: "there"}, uses, "canary")
}
