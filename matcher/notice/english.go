package notice

import (
	"fmt"
	"strings"
	"time"
)

var english = wording{
	tag:   "en",
	title: "Face recognition: what you should know before you agree",
	sections: []section{
		{"You decide", []line{
			{nil, "You do not have to use face recognition here. You need no reason, and you are served all the same."},
			{nil, "Instead you can use: {alternative}"},
		}},
		{"Who answers for it", []line{
			{nil, "Operator: {operator}"},
			{hasContact, "How to reach them: {contact}"},
			{noContact, "How to reach them: ask the staff at the site."},
		}},
		{"What it is for", []line{
			{nil, "Purpose: {purpose}"},
			{nil, "Where: {site}"},
			{nil, "Legal basis: {legal-basis}"},
		}},
		{"What is collected", []line{
			{nil, "When you enrol and whenever you use it, a picture of your face is taken. From it a template is computed, a series of numbers with which faces are compared. The picture is not kept."},
			{nil, "What is kept: your template, under a pseudonym such as a ticket number, with the times of its enrolment and of its end; and of your consent where it is filed, when you gave it, what it covers and which version of this notice you were shown. This system keeps neither your name nor the number of your ID card nor your address."},
			{notRecorded, "This system does not record when you come or go."},
			{recorded, "Each time that you are recognised, the time and the gate, door or device are recorded, under a code that changes every day and is not your pseudonym. These records are kept for {decisions} and then deleted; nothing is recorded of who you are when you are not recognised."},
			{nil, "That you are enrolled and that you are erased is entered in a log with the time, under a code that changes every day."},
		}},
		{"What it means for you", []line{
			{nil, "When you come, your face is compared with the templates that are enrolled for this purpose, to decide whether the gate, door or locker opens for you. Such a comparison can be wrong: you may not be recognised, or somebody else may be taken for you. If you are not recognised, use the alternative named above."},
		}},
		{"How long it is kept", []line{
			{once, "Your template is used once: when you have been recognised, it is erased at once."},
			{onceLimited, "If you do not come back, it is kept for at most {retention} after you enrolled, and never beyond {end}, when this purpose ends."},
			{onceOpen, "If you do not come back, it is kept until {end} at the latest, when this purpose ends."},
			{oftenLimited, "Your template is kept for at most {retention} after you enrolled, and never beyond {end}, when this purpose ends. A shorter time can be agreed when you enrol."},
			{oftenOpen, "Your template is kept until {end} at the latest, when this purpose ends. A shorter time can be agreed when you enrol."},
			{nil, "From that moment on it matches nothing, and it is then erased."},
		}},
		{"Used nowhere else", []line{
			{nil, "Your template is made with a secret that belongs to this purpose alone. It cannot be matched at any other place or for any other purpose."},
		}},
		{"Where it is sent", []line{
			{transmitted, "The picture or the template is sent to the operator's server over an encrypted network connection. To this you are asked to agree separately. If you do not, you are not enrolled and use the alternative."},
			{keptInside, "The picture or the template goes to the operator's server over an encrypted connection. It is not sent out over the internet unless you have agreed to that separately."},
		}},
		{"If you change your mind", []line{
			{hasContact, "You can withdraw your consent or ask for deletion at any time, without a reason: {contact}"},
			{noContact, "You can withdraw your consent or ask for deletion at any time, without a reason: tell the staff at the site."},
			{nil, "As soon as that is entered, your template matches nothing any more, and it is erased; you can ask for a signed receipt of that. What was decided before stays as it is. You can also ask what is kept of you, have it corrected, and complain to the authority in charge."},
		}},
		{"Children under 14", []line{
			{nil, "A child under 14 is enrolled only if a parent or another guardian has separately agreed. The guardian can withdraw that at any time, in the same way. Kept besides is that the child is under 14, and where the guardian's consent is filed."},
			{school, "When a pupil leaves the school, everything that this system keeps of the pupil is erased. Who comes back is enrolled anew, with a new consent. Every pupil can go on using the alternative named above, enrolled or not."},
		}},
		{"This notice", []line{
			{nil, "Version: {version}"},
			{nil, "When what is said here changes, so does the version."},
		}},
	},
	instant: func(t time.Time) string {
		t = t.In(zone)
		return t.Format("2 January 2006, ") + clock(t) + " (UTC+8)"
	},
	duration: func(d time.Duration) string {
		var parts []string
		for i, n := range split(d) {
			switch unit := [...]string{"day", "hour", "minute", "second"}[i]; {
			case n == 1:
				parts = append(parts, "1 "+unit)
			case n > 1:
				parts = append(parts, fmt.Sprintf("%d %ss", n, unit))
			}
		}
		return strings.Join(parts, " ")
	},
}
