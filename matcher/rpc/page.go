package rpc

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// Page sizes of List methods (AIP-158).
const (
	defaultPage = 50
	maxPage     = 1000
)

// page is where a listing goes on, and for how long.
type page struct {
	after string // the id before the page; empty for the first
	size  int
	bound [tokenSum]byte // what the listing is, so that a token fits no other
}

// A page token is, in base64url: a version, tokenSum bytes of the SHA-256 over
// method, resource and filter, and the id that the page before ended with. It
// carries no authority: whoever shows one must be allowed to list what it is
// for. The token coder of aip/pagination is not used because it decodes gob,
// which is not made for hostile input, and counts offsets, which slip when
// records come and go between two pages.
const (
	tokenVersion = 1
	tokenSum     = 16
	maxToken     = 256
)

// openPage reads the paging fields of a request. listing names everything that
// must stay the same from page to page.
func openPage(size int32, token string, listing ...string) (page, error) {
	p := page{size: int(size)}
	switch {
	case size < 0:
		return page{}, &fieldError{errPageSize, "page_size", fmt.Sprintf("is negative; 0 means %d, and %d is the most", defaultPage, maxPage)}
	case size == 0:
		p.size = defaultPage
	case size > maxPage:
		p.size = maxPage
	}
	h := sha256.New()
	for _, part := range listing {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	copy(p.bound[:], h.Sum(nil))
	if token == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(token) > maxToken || len(b) <= 1+tokenSum || b[0] != tokenVersion {
		return page{}, &fieldError{errPageToken, "page_token", "is not a token of this service: send next_page_token of the page before, unchanged"}
	}
	if !bytes.Equal(b[1:1+tokenSum], p.bound[:]) {
		return page{}, &fieldError{errPageToken, "page_token", "belongs to another listing: keep everything but page_size as it was, or begin anew"}
	}
	p.after = string(b[1+tokenSum:])
	return p, nil
}

// limit is how many entries to ask for: one more than the page has tells
// whether there is another.
func (p page) limit() int { return p.size + 1 }

// cut takes the page out of what was found and makes the token of the next one,
// empty on the last. id gives the id that entries are ordered by.
func cut[T any](p page, found []T, id func(T) string) (entries []T, next string) {
	if len(found) <= p.size {
		return found, ""
	}
	entries = found[:p.size]
	return entries, p.token(id(entries[p.size-1]))
}

// token makes the token of the page that comes after an id.
func (p page) token(after string) string {
	b := append([]byte{tokenVersion}, p.bound[:]...)
	b = append(b, after...)
	return base64.RawURLEncoding.EncodeToString(b)
}
