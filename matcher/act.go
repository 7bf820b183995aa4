package matcher

import (
	"context"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/audit"
)

// Act is what the audit log will say of a call that changes something, once it is
// carried out. Whoever calls puts it into the context (WithAct). Enroll, DeleteTemplate,
// DeleteSubject and WithdrawConsent make it durable in the transaction of their
// change, so that there is neither without the other, and nobody waits for the log.
type Act struct {
	Event audit.Event
	kept  bool
}

// Kept reports whether the act is durable together with its change; the log takes it
// over by itself. Where it is not, because nothing was changed or the log took
// no draft, writing it is the caller's. To be asked when the call has returned.
func (a *Act) Kept() bool { return a.kept }

type actKey struct{}

// WithAct is a context whose call has an act.
func WithAct(ctx context.Context, a *Act) context.Context {
	return context.WithValue(ctx, actKey{}, a)
}

// draft makes the act of the context ready to go along with a change of the scope.
// Nil where there is none, or where it must take its own way.
func (m *Matcher) draft(ctx context.Context, ref scope.Ref) *drafted {
	a, _ := ctx.Value(actKey{}).(*Act)
	if a == nil || m.audit == nil || a.Event.Tenant != ref.Tenant || a.Event.Scope != ref.Scope {
		return nil
	}
	d, err := m.audit.Draft(a.Event)
	if err != nil || d == nil {
		return nil // its own way tells why
	}
	return &drafted{a, d}
}

// drafted is an act on its way into a transaction. Nil is none.
type drafted struct {
	act   *Act
	draft audit.Draft
}

// at is the draft as the store keeps it, of the change that makes an epoch.
func (d *drafted) at(epoch scope.Epoch) []byte {
	if d == nil {
		return nil
	}
	d.draft.At(uint64(epoch))
	return d.draft
}

// durable says that the change, and so the act, is durable.
func (d *drafted) durable() {
	if d != nil {
		d.act.kept = true
	}
}
