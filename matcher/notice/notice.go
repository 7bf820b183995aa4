// Package notice writes what people are told before they agree that their face
// is used: from the settings of the scope, in English or simplified Chinese, as
// plain text and as one self-contained HTML page that is readable on a phone and
// can be printed.
//
// It promises that the same facts give the same bytes, that everything which
// the facts hold is shown as text and never as markup, and that both languages
// say the same. It states how the product treats faces and what the operator has
// set; it does not judge whether that suffices where the notice is shown: the
// operator reads it before putting it up.
package notice

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Facts are what the notice tells of one scope. Texts are the operator's own;
// characters that are not visible are replaced.
type Facts struct {
	Operator    string // who answers for it: the tenant's display name
	Purpose     string
	Site        string
	Alternative string
	LegalBasis  string
	Contact     string // empty: people are sent to the staff at the site
	Version     string
	End         time.Time
	Retention   time.Duration // 0: to the end
	// Decisions is how long records of recognitions are kept; 0: there are none.
	Decisions time.Duration
	// Transmission: enrolment needs separate consent to transmission.
	Transmission bool
	SingleUse    bool
	School       bool // more is said about pupils and their guardians
}

// Language is a language of notices.
type Language string

// The languages.
const (
	English Language = "en"
	Chinese Language = "zh" // simplified
)

// edition counts the wordings: it is raised whenever one changes, since people are
// then told something else. TestEdition fails until it is.
const edition = 1

// Digest is eight hexadecimal digits of everything that the notice says but who the
// operator is, which never changes, and the version: of the facts and the edition of
// the wording. They tell the few notices of a scope apart and are no seal: who looks
// for two notices with one digest finds them.
func (f Facts) Digest() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "menshen notice %d %q %d %d %d %d %t %t %t", edition,
		[]string{f.Purpose, f.Site, f.Alternative, f.LegalBasis, f.Contact},
		f.End.Unix(), f.End.Nanosecond(), f.Retention, f.Decisions, f.Transmission, f.SingleUse, f.School))
	return hex.EncodeToString(sum[:4])
}

// Notice is what people are shown.
type Notice struct {
	Language Language
	Title    string
	Text     string // lines end in \n
	HTML     string // a whole document
}

// ErrLanguage: there are no notices in the language.
var ErrLanguage = errors.New("no notices in this language: en and zh are known")

// ParseLanguage reads a language tag by its first part, as in zh-CN; an empty
// one is English.
func ParseLanguage(tag string) (Language, error) {
	primary, _, _ := strings.Cut(tag, "-")
	switch strings.ToLower(primary) {
	case "", "en":
		return English, nil
	case "zh":
		return Chinese, nil
	}
	return "", ErrLanguage
}

// Write writes the notice. ErrLanguage for a language that is none of the
// constants.
func Write(f Facts, lang Language) (Notice, error) {
	w, ok := wordings[lang]
	if !ok {
		return Notice{}, fmt.Errorf("%w, not %q", ErrLanguage, lang)
	}
	d := w.document(f)
	return Notice{Language: lang, Title: w.title, Text: d.text(), HTML: d.html()}, nil
}

// wording is a notice in one language, with gaps {like-this} for the facts.
type wording struct {
	tag, title string
	sections   []section
	// instant and duration write times the way the language does.
	instant  func(time.Time) string
	duration func(time.Duration) string
}

type section struct {
	head  string
	lines []line
}

// line is said where when agrees; nil always does.
type line struct {
	when func(Facts) bool
	text string
}

var wordings = map[Language]wording{English: english, Chinese: chinese}

// Conditions of lines.
func hasContact(f Facts) bool   { return f.Contact != "" }
func noContact(f Facts) bool    { return f.Contact == "" }
func recorded(f Facts) bool     { return f.Decisions > 0 }
func notRecorded(f Facts) bool  { return f.Decisions <= 0 }
func transmitted(f Facts) bool  { return f.Transmission }
func keptInside(f Facts) bool   { return !f.Transmission }
func once(f Facts) bool         { return f.SingleUse }
func onceLimited(f Facts) bool  { return f.SingleUse && f.Retention > 0 }
func onceOpen(f Facts) bool     { return f.SingleUse && f.Retention <= 0 }
func oftenLimited(f Facts) bool { return !f.SingleUse && f.Retention > 0 }
func oftenOpen(f Facts) bool    { return !f.SingleUse && f.Retention <= 0 }
func school(f Facts) bool       { return f.School }

// document is a notice with its gaps filled.
type document struct {
	tag, title string
	sections   []filled
}

type filled struct {
	head  string
	lines [][]piece
}

// piece is part of a line: the wording's, or a fact.
type piece struct {
	text string
	fact bool
}

func (w wording) document(f Facts) document {
	facts := map[string]string{
		"operator": f.Operator, "purpose": f.Purpose, "site": f.Site, "alternative": f.Alternative, "legal-basis": f.LegalBasis,
		"contact": f.Contact, "version": f.Version, "end": w.instant(f.End), "retention": w.duration(f.Retention), "decisions": w.duration(f.Decisions),
	}
	d := document{tag: w.tag, title: w.title}
	for _, s := range w.sections {
		out := filled{head: s.head}
		for _, l := range s.lines {
			if l.when == nil || l.when(f) {
				out.lines = append(out.lines, fill(l.text, facts))
			}
		}
		if len(out.lines) > 0 {
			d.sections = append(d.sections, out)
		}
	}
	return d
}

// fill puts facts into the gaps of a text. What it puts in is not read again, so
// a fact that looks like a gap stays what it is.
func fill(text string, facts map[string]string) (pieces []piece) {
	for text != "" {
		before, rest, gap := strings.Cut(text, "{")
		if before != "" {
			pieces = append(pieces, piece{text: before})
		}
		if !gap {
			break
		}
		name, after, _ := strings.Cut(rest, "}")
		pieces = append(pieces, piece{text: visible(facts[name]), fact: true})
		text = after
	}
	return pieces
}

// visible replaces what would not be seen: control characters, and those that
// turn the direction of the text around them.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsGraphic(r):
			return r
		}
		return unicode.ReplacementChar
	}, strings.ToValidUTF8(text, string(unicode.ReplacementChar)))
}

// zone is what times are told in: that of all of China. The API's times are
// instants and know no place.
var zone = time.FixedZone("UTC+8", 8*60*60)

// clock writes the time of day, seconds where there are any.
func clock(t time.Time) string {
	if t.Second() != 0 {
		return t.Format("15:04:05")
	}
	return t.Format("15:04")
}

// split divides a duration into days, hours, minutes and seconds; what is left
// of a second is dropped.
func split(d time.Duration) [4]int64 {
	s := int64(d / time.Second)
	return [4]int64{s / 86400, s / 3600 % 24, s / 60 % 60, s % 60}
}
