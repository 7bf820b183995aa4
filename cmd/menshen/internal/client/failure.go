package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Failure is what a failed call means to the person at the terminal: the
// server's status with its details taken apart.
type Failure struct {
	Code       string            `json:"code,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	Message    string            `json:"message"`
	Fields     []Field           `json:"fields,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	RetryAfter string            `json:"retry_after,omitempty"`
	Next       string            `json:"next,omitempty"`
}

// Field is one field of the request that was refused.
type Field struct {
	Name string `json:"field"`
	Text string `json:"text"`
}

// Explain takes any error of a command apart. Errors that are not statuses
// carry their next step in their text already.
func Explain(err error) Failure {
	var asStatus interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &asStatus) {
		return Failure{Message: err.Error()}
	}
	st := asStatus.GRPCStatus()
	f := Failure{Code: st.Code().String(), Message: st.Message()}
	// What the command said around the status ("photo.jpg: ...") comes first.
	if inner, ok := asStatus.(error); ok {
		if prefix, found := strings.CutSuffix(err.Error(), inner.Error()); found {
			f.Message = prefix + f.Message
		}
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			f.Reason, f.Metadata = d.Reason, d.Metadata
		case *errdetails.BadRequest:
			for _, v := range d.FieldViolations {
				f.Fields = append(f.Fields, Field{v.Field, v.Description})
			}
		case *errdetails.RetryInfo:
			f.RetryAfter = d.RetryDelay.AsDuration().Round(time.Millisecond).String()
		}
	}
	f.Next = nextFor[f.Reason]
	answered := f.Reason != "" && st.Code() == codes.Unavailable // the server said why, so no connection broke
	if f.Next == "" && !answered {
		f.Next = next(st)
	}
	return f
}

// nextFor says what to type about a reason that the server gave.
var nextFor = map[string]string{
	"CREDENTIAL_MISSING":      "give --api-key-file FILE or set MENSHEN_API_KEY; this server does not go by the client certificate alone",
	"CERTIFICATE_MISSING":     "give --tls-cert and --tls-key, of a certificate that holds a SPIFFE ID or a subject",
	"CERTIFICATE_UNKNOWN":     "a platform admin binds it with \"menshen credentials create --client-certificate\"; the one before may be revoked or expired",
	"CERTIFICATE_AMBIGUOUS":   "get a certificate with one SPIFFE ID or a subject, made for this client",
	"CERTIFICATE_NEEDS_ADMIN": "use the key of a platform admin",
	"CREDENTIAL_CONFLICT":     "leave the API key or --tls-cert out, or give those that belong together; keys are also taken from MENSHEN_API_KEY and MENSHEN_API_KEY_FILE",
}

// next says what to do about a failure that the server itself could not
// explain, because it was not reached or does not know this command's flags.
func next(st *status.Status) string {
	text := st.Message()
	switch st.Code() {
	case codes.Unavailable:
		if next := nextForTLS(text); next != "" {
			return next
		}
		if neverSent(text) {
			return "is the server running, and is --server right? Nothing was sent. If the server ended, start it again as before; to try things out, \"menshen serve --dev\" starts one on this machine"
		}
		return "the connection broke before the answer: the server was ended, or the network between. What was asked for may or may not have been done: once the server is there again look, or repeat the command; one with a --request-id is carried out once"
	case codes.Unauthenticated:
		return "check the key of --api-key-file or MENSHEN_API_KEY; it may be revoked or expired, or belong to another server"
	case codes.PermissionDenied:
		return "use a key whose role and scopes cover this; \"menshen credentials create --help\" lists the roles"
	case codes.ResourceExhausted:
		if strings.Contains(text, "larger than max") {
			return "the images are larger than the server takes in one call; scale them down or send fewer"
		}
	case codes.DeadlineExceeded:
		return "give the call more time with --timeout"
	case codes.Unimplemented:
		return "the server is older than this command; compare with \"menshen version\""
	}
	return ""
}

// neverSent reports whether a connection's text says that there was none.
func neverSent(text string) bool {
	return strings.Contains(text, "while dialing") || strings.Contains(text, "connection refused") || strings.Contains(text, "waiting for connections")
}

// Cut reports whether a call ended without the server's answer after it may have
// arrived there: what it asked for may or may not be done. A server that refuses
// gives a reason.
func Cut(err error) bool {
	st, isStatus := status.FromError(err)
	if !isStatus {
		return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	}
	for _, d := range st.Details() {
		if _, ok := d.(*errdetails.ErrorInfo); ok {
			return false
		}
	}
	switch st.Code() {
	case codes.Unavailable:
		return nextForTLS(st.Message()) == "" && !neverSent(st.Message())
	case codes.Canceled, codes.DeadlineExceeded, codes.Internal, codes.Unknown:
		return true
	}
	return false
}

// WriteText prints the failure for people.
func (f Failure) WriteText(w io.Writer) {
	head := "menshen: " + f.Message
	switch {
	case f.Reason != "":
		head += fmt.Sprintf(" (%s, %s)", f.Reason, f.Code)
	case f.Code != "":
		head += fmt.Sprintf(" (%s)", f.Code)
	}
	fmt.Fprintln(w, head)
	for _, field := range f.Fields {
		if strings.Contains(f.Message, field.Name+": "+field.Text) {
			continue // said already
		}
		text := ": " + field.Text
		if strings.Contains(f.Message, field.Text) {
			text = ""
		}
		fmt.Fprintf(w, "  in %s%s\n", field.Name, text)
	}
	var keys []string
	for k := range f.Metadata {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(w, "  %s = %s\n", k, f.Metadata[k])
	}
	if f.RetryAfter != "" {
		fmt.Fprintf(w, "  try again after %s\n", f.RetryAfter)
	}
	if f.Next != "" {
		fmt.Fprintf(w, "  next: %s\n", f.Next)
	}
}

// WriteJSON prints the failure as one line {"error": {...}}.
func (f Failure) WriteJSON(w io.Writer) {
	line, err := json.Marshal(map[string]Failure{"error": f})
	if err != nil {
		fmt.Fprintln(w, f.Message)
		return
	}
	fmt.Fprintf(w, "%s\n", line)
}
