package matcher

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Consent is the record of a person's agreement: references only, never a name,
// an ID number or an address.
type Consent struct {
	Reference         string    `json:"reference"`
	GiveTime          time.Time `json:"give_time"`
	NoticeVersion     string    `json:"notice_version"`
	Minor             bool      `json:"minor,omitempty"`
	GuardianReference string    `json:"guardian_reference,omitempty"`
	Transmission      bool      `json:"transmission,omitempty"`
}

// Limits of the texts that the service keeps.
const (
	// MaxReference is the longest reference in bytes.
	MaxReference = 200
	// MaxText is the longest purpose, site or alternative in bytes.
	MaxText = 1000
)

// clockSkew is how far in the future a consent time may lie: the clocks of an
// enrolment desk and the server differ.
const clockSkew = 5 * time.Minute

func (c Consent) check(v *checks, now time.Time) {
	checkText(v, "consent.reference", c.Reference, MaxReference, true)
	checkText(v, "consent.notice_version", c.NoticeVersion, MaxReference, true)
	v.require(!c.GiveTime.IsZero(), "consent.give_time", "is required: say when the person agreed")
	v.require(!c.GiveTime.After(now.Add(clockSkew)), "consent.give_time", "lies in the future")
	checkText(v, "consent.guardian_reference", c.GuardianReference, MaxReference, c.Minor)
	v.require(c.Minor || c.GuardianReference == "", "consent.guardian_reference", "is only for minors: set consent.minor too")
}

// checkText checks a text that people wrote: valid UTF-8, not too long, and
// nothing invisible, which could change how a terminal or a log shows it.
func checkText(v *checks, field, text string, most int, required bool) {
	v.require(!required || strings.TrimSpace(text) != "", field, "is required")
	v.require(len(text) <= most, field, "has %d bytes; at most %d are allowed", len(text), most)
	v.require(utf8.ValidString(text), field, "is not valid UTF-8")
	for _, r := range text {
		if !unicode.IsGraphic(r) {
			v.require(false, field, "holds %U, which is no visible character", r)
			return
		}
	}
}
