package rpc

import (
	"errors"
	"strconv"
	"strings"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/auth"
)

// Resource names of the API. Only the one spelling that the service itself
// writes is read: no leading slash, no //host/ before it, no leading zeros.
const (
	patternTenant             = "tenants/{tenant}"
	patternScope              = "tenants/{tenant}/scopes/{scope}"
	patternSubject            = "tenants/{tenant}/scopes/{scope}/subjects/{subject}"
	patternTemplate           = "tenants/{tenant}/scopes/{scope}/subjects/{subject}/templates/{template}"
	patternCredential         = "tenants/{tenant}/credentials/{credential}"
	patternPlatformCredential = "credentials/{credential}"
)

// maxName is longer than any name that is one: four ids of 63 and the words.
const maxName = 320

// fieldError is a fault of one field, found before the matcher sees the call.
type fieldError struct {
	kind  error // the sentinel
	field string
	text  string
}

func (e *fieldError) Error() string { return e.field + ": " + e.text }
func (e *fieldError) Unwrap() error { return e.kind }

func badName(field, pattern string) error {
	return &fieldError{errName, field, "must be of the form " + strings.NewReplacer("{", "", "}", "").Replace(pattern) +
		" with ids of 1 to 63 of a-z, 0-9 and inner '-'"}
}

func missingName(field, pattern string) error {
	return &fieldError{errMissing, field, "is required: a name of the form " + strings.NewReplacer("{", "", "}", "").Replace(pattern)}
}

// scan takes a name apart. Ids are what the caller says: validate them.
func scan(field, name, pattern string, ids ...*string) error {
	if name == "" {
		return missingName(field, pattern)
	}
	if len(name) > maxName {
		return badName(field, pattern)
	}
	rest, more := name, true
	for form := pattern; form != ""; {
		var want, segment string
		want, form, _ = strings.Cut(form, "/")
		if !more {
			return badName(field, pattern)
		}
		segment, rest, more = strings.Cut(rest, "/")
		if strings.HasPrefix(want, "{") {
			*ids[0], ids = segment, ids[1:]
		} else if segment != want {
			return badName(field, pattern)
		}
	}
	if more {
		return badName(field, pattern)
	}
	return nil
}

func parseTenant(field, name string) (scope.TenantID, error) {
	var t string
	if err := scan(field, name, patternTenant, &t); err != nil {
		return "", err
	}
	if scope.TenantID(t).Validate() != nil {
		return "", badName(field, patternTenant)
	}
	return scope.TenantID(t), nil
}

func parseScope(field, name string) (scope.Ref, error) {
	var t, s string
	if err := scan(field, name, patternScope, &t, &s); err != nil {
		return scope.Ref{}, err
	}
	ref := scope.Ref{Tenant: scope.TenantID(t), Scope: scope.ScopeID(s)}
	if ref.Validate() != nil {
		return scope.Ref{}, badName(field, patternScope)
	}
	return ref, nil
}

func parseSubject(field, name string) (scope.Ref, scope.SubjectID, error) {
	var t, s, u string
	if err := scan(field, name, patternSubject, &t, &s, &u); err != nil {
		return scope.Ref{}, "", err
	}
	ref, id := scope.Ref{Tenant: scope.TenantID(t), Scope: scope.ScopeID(s)}, scope.SubjectID(u)
	if errors.Join(ref.Validate(), id.Validate()) != nil {
		return scope.Ref{}, "", badName(field, patternSubject)
	}
	return ref, id, nil
}

func parseTemplate(field, name string) (scope.Ref, scope.SubjectID, scope.TemplateID, error) {
	subject, number, found := strings.Cut(name, "/templates/")
	if name == "" {
		return scope.Ref{}, "", 0, missingName(field, patternTemplate)
	}
	ref, id, err := parseSubject(field, subject)
	n, numeric := parseNumber(number)
	if !found || err != nil || !numeric {
		return scope.Ref{}, "", 0, badName(field, patternTemplate)
	}
	return ref, id, n, nil
}

// parseNumber reads a template's number in its one spelling.
func parseNumber(s string) (scope.TemplateID, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return scope.TemplateID(n), err == nil && n > 0 && strconv.FormatUint(n, 10) == s
}

// parseCredential reads tenants/T/credentials/C or credentials/C; the tenant is
// empty for the latter.
func parseCredential(field, name string) (scope.TenantID, auth.CredentialID, error) {
	var t, c string
	if strings.HasPrefix(name, "credentials/") {
		if scan(field, name, patternPlatformCredential, &c) != nil || !auth.CredentialID(c).Valid() {
			return "", "", badCredentialName(field)
		}
		return "", auth.CredentialID(c), nil
	}
	if name == "" {
		return "", "", missingName(field, patternCredential)
	}
	if scan(field, name, patternCredential, &t, &c) != nil || scope.TenantID(t).Validate() != nil || !auth.CredentialID(c).Valid() {
		return "", "", badCredentialName(field)
	}
	return scope.TenantID(t), auth.CredentialID(c), nil
}

func badCredentialName(field string) error {
	return &fieldError{errName, field, "must be of the form tenants/tenant/credentials/credential or credentials/credential, as CreateCredential told it"}
}

func tenantName(t scope.TenantID) string { return "tenants/" + string(t) }

func subjectName(ref scope.Ref, id scope.SubjectID) string {
	return "tenants/" + string(ref.Tenant) + "/scopes/" + string(ref.Scope) + "/subjects/" + string(id)
}

func templateName(ref scope.Ref, id scope.SubjectID, n scope.TemplateID) string {
	return "tenants/" + string(ref.Tenant) + "/scopes/" + string(ref.Scope) + "/subjects/" + string(id) + "/templates/" + strconv.FormatUint(uint64(n), 10)
}

func credentialName(t scope.TenantID, id auth.CredentialID) string {
	if t == "" {
		return "credentials/" + string(id)
	}
	return tenantName(t) + "/credentials/" + string(id)
}

// scopeOf is the scope that a request means: the one that it names, or the only
// one of the credential.
func (c call) scopeOf(field, name string) (scope.Ref, error) {
	if name == "" {
		return c.caller.OnlyScope()
	}
	return parseScope(field, name)
}

// tenantOf is the tenant that a request means: the one that it names, or the
// credential's.
func (c call) tenantOf(field, name string) (scope.TenantID, error) {
	if name == "" {
		return c.caller.OnlyTenant()
	}
	return parseTenant(field, name)
}

// subjectOf is the subject that a request claims: a full name, or an id in the
// only scope of the credential.
func (c call) subjectOf(field, name string) (scope.Ref, scope.SubjectID, error) {
	if name == "" || strings.Contains(name, "/") {
		return parseSubject(field, name)
	}
	id := scope.SubjectID(name)
	if id.Validate() != nil {
		return scope.Ref{}, "", badName(field, patternSubject)
	}
	ref, err := c.caller.OnlyScope()
	return ref, id, err
}
