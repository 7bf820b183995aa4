package matcher

import (
	"context"
	"errors"
	"fmt"

	"github.com/menshen-io/menshen/matcher/admission"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/matcher/receipt"
)

// use ends the subject of a match where the scope's templates are for one use:
// it is erased, durably, before the answer leaves. Of the calls that match a
// subject at the same time one gets its lock first and erases it; the others find
// it gone, which is ErrOvertaken: they compare again and answer as for a subject
// that is unknown. So is a gate answered that lost the one MATCH and asks again.
//
// When the erasure cannot be made durable, or the scope ended meanwhile, the
// error is why, and no match leaves. Other decisions and other scopes pass.
func (m *Matcher) use(ctx context.Context, ticket *admission.Ticket, sc *scopeEntry, d Decision) (Decision, error) {
	if d.Outcome != Match || !sc.info.Load().settings.SingleUse {
		return d, nil
	}
	ticket.Done(nil) // what is left waits for the disk and not for a core
	overtaken := fmt.Errorf("%w: %s/subjects/%s", ErrOvertaken, sc.ref, d.Subject)
	pick := func(rec *subjectRecord) ([]templateEntry, error) {
		now := m.now()
		if err := sc.usable(now); err != nil {
			return nil, err
		}
		if sc.erasures.touched(d.mark, d.Subject) || !now.Before(rec.Expires) {
			return nil, overtaken // who has the id now is somebody else
		}
		return rec.Templates, ctx.Err() // a caller that is gone uses nobody up
	}
	_, err := m.eraseFrom(ctx, sc, d.Subject, idempotency.Request{}, order{kind: receipt.Subjects, cause: receipt.Used, by: service(m.now().UTC()), pick: pick})
	if errors.Is(err, ErrNoSubject) {
		err = overtaken
	}
	if err != nil {
		return Decision{}, err
	}
	d.used = true
	m.acts(sc.ref, "EraseUsed")
	return d, m.fence(sc, d.mark)
}
