package matcher

import (
	"context"
	"fmt"

	"github.com/menshen-io/menshen/index/scope"
)

// scopesOf is the key of m.creating under which scopes of a tenant are made, and
// the tenant is closed: one at a time.
func scopesOf(tenant scope.TenantID) string { return "scopes of " + string(tenant) }

// CloseTenant calls end while the tenant has no scope that is not revoked and
// none can be made; once end has returned nil, none can be made by calls either
// that were let in before. It takes no grant: it looks at nothing but whether
// scopes live, and end is what authorises. After a restart the tenant is closed
// by its credentials, which end has made useless.
//
// A revocation that is not durable yet does not count as one. Errors:
// ErrLiveScopes, those of end.
func (m *Matcher) CloseTenant(ctx context.Context, tenant scope.TenantID, end func() error) error {
	unlock, err := m.creating.acquire(ctx, scopesOf(tenant))
	if err != nil {
		return err
	}
	defer unlock()
	if n, first := m.liveScopes(tenant); n > 0 {
		return fmt.Errorf("%w: tenants/%s has %d, %s among them; its operator revokes them first", ErrLiveScopes, tenant, n, first)
	}
	if err := end(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended[tenant] = true
	return nil
}

// liveScopes counts the scopes of a tenant that are not revoked for sure, and
// names the first of them.
func (m *Matcher) liveScopes(tenant scope.TenantID) (n int, first scope.ScopeID) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for ref, sc := range m.scopes {
		if ref.Tenant == tenant && sc.view().State != scope.Revoked {
			if n++; n == 1 || ref.Scope < first {
				first = ref.Scope
			}
		}
	}
	return n, first
}

func (m *Matcher) isClosed(tenant scope.TenantID) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.ended[tenant]
}
