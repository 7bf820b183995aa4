package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/admission"
	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/matcher/rpc/arrive"
)

// call is what is known of a call once it is admitted.
type call struct {
	method string
	row    row
	caller auth.Caller // zero for open methods
	peer   Certified   // nil where the connection shows no certificate
	// announced is the core time that the limiter expects it to ask for.
	announced admission.Announcement
}

type callKey struct{}

// admitted is the context of an admitted call: context.WithValue in one piece.
type admitted struct {
	context.Context
	call    call
	arrival arrive.Call
}

func (a *admitted) Value(key any) any {
	if key == (callKey{}) {
		return &a.call
	}
	if key == (arrivalKey{}) {
		return &a.arrival
	}
	return a.Context.Value(key)
}

// callOf returns the admitted call; the zero call, which may do nothing, where
// none was admitted.
func callOf(ctx context.Context) call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return *c
	}
	return call{}
}

// grant mints the proof for one scope and the use that the method's row names.
func (c call) grant(ref scope.Ref) (scope.Grant, error) { return c.grantFor(ref, c.row.use) }

// grantFor is grant for one of the uses of a stream's row.
func (c call) grantFor(ref scope.Ref, use scope.Use) (scope.Grant, error) {
	if c.row.level != scoped && c.row.level != tenant || use == 0 || c.row.use&use != use {
		return scope.Grant{}, auth.ErrDenied
	}
	return c.caller.Grant(ref, use)
}

// admittance decides about calls before their messages are read.
type admittance struct {
	policy    policy
	authority *auth.Authority
	limiter   *admission.Limiter
	arrivals  *arrive.Watch   // nil: nobody watches
	streams   map[string]bool // the methods whose clients stream
	refused   *refusals
	acts      *acts
	busy      busy
}

// admit looks the method up, then the credential, then its role, and at last
// whether there is room for the work.
func (a *admittance) admit(ctx context.Context, method string, header metadata.MD) (*admitted, error) {
	r, ok := a.policy[method]
	if !ok {
		return nil, errNoMethod
	}
	c := call{method: method, row: r, peer: certified(ctx)}
	var shown auth.Shown
	var err error
	if c.peer != nil {
		if shown.Certificate, err = c.peer.Certificate(); err != nil {
			return nil, err
		}
	}
	if r.level != open {
		if shown.Key, shown.HasKey, err = bearer(header); err != nil {
			return nil, err
		}
		if c.caller, err = a.authority.Caller(shown); err != nil {
			return nil, err
		}
		if !r.roles.has(c.caller.Role()) {
			err := fmt.Errorf("%w: the role %s may not call %s", errRole, c.caller.Role(), method)
			a.acts.denied(c, err)
			return nil, err
		}
	}
	if a.arrivals != nil && !r.administrative() {
		if err = a.arrivals.Room(string(c.caller.Tenant())); err != nil {
			return nil, err
		}
	}
	if weighed(method) {
		if c.announced, err = a.limiter.Announce(string(c.caller.Tenant())); err != nil {
			return nil, err
		}
	}
	return &admitted{Context: ctx, call: c}, nil
}

// bearer finds the API key, if there is one. More than one authorization header
// is refused: a proxy in front may have looked at the other one.
func bearer(header metadata.MD) (key string, sent bool, err error) {
	values := header.Get("authorization")
	switch {
	case len(values) == 0:
		return "", false, nil
	case len(values) > 1:
		return "", false, errManyCredentials
	}
	scheme, key, found := strings.Cut(values[0], " ")
	if !found || !strings.EqualFold(scheme, "bearer") {
		return "", false, errScheme
	}
	return key, true, nil
}

// Certified is what the AuthInfo of a connection implements whose client showed
// a certificate.
type Certified interface {
	// Certificate returns the identity that the certificate names, the empty one
	// where it names nobody, or an error of matcher/auth once the certificate is
	// not accepted any more. It is asked for every call and message, from many
	// goroutines.
	Certificate() (auth.Identity, error)
}

// certified finds the certificate of a call's connection.
func certified(ctx context.Context) Certified {
	if p, ok := peer.FromContext(ctx); ok {
		info := p.AuthInfo
		if watched, ok := info.(*arrive.Peer); ok {
			info = watched.AuthInfo
		}
		c, _ := info.(Certified)
		return c
	}
	return nil
}

// check tells whether the caller of a call is still welcome: the credential is
// neither revoked nor expired, and the connection's certificate is still good.
func (c call) check(authority *auth.Authority) error {
	if c.peer != nil {
		if _, err := c.peer.Certificate(); err != nil {
			return err
		}
	}
	if c.row.level == open {
		return nil
	}
	return authority.Check(c.caller)
}

// tap admits a call when its headers arrive, before anything of its message is
// read. It runs on the connection's reader and does not block.
func (a *admittance) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	admitted, err := a.admit(ctx, info.FullMethodName, info.Header)
	if err != nil {
		var overload *admission.Overload
		if errors.As(err, &overload) {
			return nil, a.busy.answer(overload) // counted by the limiter, and logged in sum
		}
		if errors.Is(err, arrive.ErrFull) {
			return nil, toStatus(err).Err() // counted where it was refused, and logged in sum
		}
		a.refused.note(ctx, info.FullMethodName, err)
		return nil, toStatus(err).Err()
	}
	if p, ok := peer.FromContext(ctx); ok {
		kind := arrive.Kind{Streams: a.streams[info.FullMethodName], Spared: admitted.call.row.administrative()}
		a.arrivals.Begin(ctx, &admitted.arrival, p.AuthInfo, string(admitted.call.caller.Tenant()), kind)
	}
	return admitted, nil
}

// present checks an admitted call again when its message has arrived: headers
// can be sent hours before the message, and the credential revoked meanwhile.
func (a *admittance) present(ctx context.Context, method string) error {
	c := callOf(ctx)
	if c.method != method || c.row.level == 0 {
		return errNoMethod
	}
	return c.check(a.authority)
}

func (a *admittance) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	callOf(ctx).announced.Arrived()
	if err := a.present(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

func (a *admittance) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := a.present(s.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(srv, s)
}
