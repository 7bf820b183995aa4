package auth

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// subject is a distinguished name in the order of RFC 2253: the holder first,
// the country or root last. A part has more than one attribute where they are
// joined by "+".
type subject [][]attribute

// attribute is one of a name's, with the keyword of its kind, or the number
// where RFC 2253 knows no keyword.
type attribute struct{ kind, value string }

// keywords are the kinds of attributes that have a name: those of RFC 2253, and
// two that tools print by name.
var keywords = map[string]string{
	"2.5.4.3": "CN", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.6": "C", "2.5.4.9": "STREET",
	"0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
	"2.5.4.5": "SERIALNUMBER", "1.2.840.113549.1.9.1": "EMAILADDRESS",
}

// identity writes a name in its canonical spelling. Different names have
// different spellings: kinds are known words or numbers, and what separates is
// escaped inside values.
func (s subject) identity() (Identity, error) {
	var b strings.Builder
	for i, part := range s {
		slices.SortFunc(part, func(a, b attribute) int { return strings.Compare(a.kind+"="+a.value, b.kind+"="+b.value) })
		for k, a := range part {
			if err := a.check(); err != nil {
				return "", err
			}
			switch {
			case k > 0:
				b.WriteByte('+')
			case i > 0:
				b.WriteByte(',')
			}
			b.WriteString(a.kind)
			b.WriteByte('=')
			a.escape(&b)
		}
	}
	if b.Len() > maxIdentity {
		return "", fmt.Errorf("the subject has %d bytes; at most %d are allowed", b.Len(), maxIdentity)
	}
	return Identity(b.String()), nil
}

// check refuses what cannot be printed, and so cannot be compared by people.
func (a attribute) check() error {
	if a.value == "" || !utf8.ValidString(a.value) || strings.ContainsFunc(a.value, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return fmt.Errorf("%s of the subject is empty or holds unprintable characters", a.kind)
	}
	return nil
}

// escape writes the value as RFC 2253, section 2.4, says.
func (a attribute) escape(b *strings.Builder) {
	for i, r := range a.value {
		edge := r == ' ' && (i == 0 || i == len(a.value)-1) || r == '#' && i == 0
		if edge || strings.ContainsRune(special, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
}

const special = `,+"\<>;`

// readSubject reads a subject as a certificate holds it.
func readSubject(der []byte) (subject, error) {
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &rdns); err != nil || len(rest) > 0 {
		return nil, errors.New("its subject cannot be read")
	}
	var out subject
	for _, rdn := range slices.Backward(rdns) {
		var part []attribute
		for _, tv := range rdn {
			value, ok := tv.Value.(string)
			if !ok {
				return nil, fmt.Errorf("its subject holds an attribute %s that is no text", tv.Type)
			}
			part = append(part, attribute{kindOf(tv.Type.String()), value})
		}
		if len(part) == 0 {
			return nil, errors.New("its subject cannot be read")
		}
		out = append(out, part)
	}
	return out, nil
}

// kindOf gives the keyword of a number that has one.
func kindOf(number string) string {
	if word, ok := keywords[number]; ok {
		return word
	}
	return number
}

// parseSubject reads a subject as people and tools write it.
func parseSubject(text string) (subject, error) {
	var out subject
	for _, part := range split(text, ',') {
		var attributes []attribute
		for _, one := range split(part, '+') {
			a, err := parseAttribute(one)
			if err != nil {
				return nil, err
			}
			attributes = append(attributes, a)
		}
		out = append(out, attributes)
	}
	return out, nil
}

// split cuts at a separator that is not escaped.
func split(text string, separator byte) (parts []string) {
	from := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case separator:
			parts, from = append(parts, text[from:i]), i+1
		}
	}
	return append(parts, text[from:])
}

func parseAttribute(text string) (attribute, error) {
	kind, value, ok := strings.Cut(text, "=")
	if kind = strings.TrimSpace(kind); !ok || kind == "" {
		return attribute{}, fmt.Errorf(`%.100q is no attribute: write spiffe://TRUST-DOMAIN/PATH, or a subject such as "CN=gate-1,O=Acme", the holder first`, text)
	}
	a := attribute{}
	if a.kind, ok = canonicalKind(kind); !ok {
		return attribute{}, fmt.Errorf("%.100q is no attribute of a subject: use CN, O, OU, L, ST, C, STREET, DC, UID, serialNumber, emailAddress or a number such as 2.5.4.12", kind)
	}
	value = strings.TrimLeft(value, " ")
	for strings.HasSuffix(value, " ") && !escaped(value, len(value)-1) {
		value = value[:len(value)-1]
	}
	var err error
	if coded, isCoded := strings.CutPrefix(value, "#"); isCoded {
		a.value, err = decodeValue(coded)
	} else {
		a.value, err = unescape(value)
	}
	if err == nil {
		err = a.check()
	}
	return a, err
}

// canonicalKind finds the keyword of a kind, or its number in the one spelling
// that certificates have.
func canonicalKind(text string) (string, bool) {
	for _, word := range keywords {
		if strings.EqualFold(text, word) {
			return word, true
		}
	}
	arcs := strings.Split(text, ".")
	for _, arc := range arcs {
		if n, err := strconv.ParseInt(arc, 10, 32); err != nil || strconv.FormatInt(n, 10) != arc || n < 0 {
			return "", false
		}
	}
	return kindOf(text), len(arcs) > 1
}

// escaped reports whether the byte at i stands behind an odd number of
// backslashes.
func escaped(text string, i int) bool {
	n := 0
	for i > 0 && text[i-1] == '\\' {
		i, n = i-1, n+1
	}
	return n%2 == 1
}

// unescape reads a value: a backslash stands before a special letter, or before
// two hexadecimal digits that are a byte of UTF-8.
func unescape(text string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c != '\\' && strings.IndexByte(special, c) >= 0:
			return "", fmt.Errorf(`%q inside a subject must be written \%c`, string(c), c)
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(text) && strings.IndexByte(special+" #=", text[i+1]) >= 0:
			i++
			b.WriteByte(text[i])
		case i+2 < len(text):
			code, err := hex.DecodeString(text[i+1 : i+3])
			if err != nil {
				return "", errors.New(`a backslash inside a subject stands before one of ,+"\<>;#= or two hexadecimal digits`)
			}
			b.Write(code)
			i += 2
		default:
			return "", errors.New("the subject ends in the middle of an escaped letter")
		}
	}
	return b.String(), nil
}

// decodeValue reads the #-form, the value's DER in hexadecimal, in which tools
// print attributes that they do not know.
func decodeValue(text string) (string, error) {
	der, err := hex.DecodeString(text)
	if err != nil {
		return "", errors.New(`a value that begins with # is DER in hexadecimal; for the letter itself write \#`)
	}
	var value any
	rest, err := asn1.Unmarshal(der, &value)
	out, ok := value.(string)
	if err != nil || len(rest) > 0 || !ok {
		return "", errors.New(`a value that begins with # is the DER of a text; for the letter itself write \#`)
	}
	return out, nil
}
