package matcher

import (
	"context"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/notice"
)

// Notice writes what people are told before they agree, from the scope's
// settings as they are now and in any state of the scope. operator is how the
// tenant is called.
func (m *Matcher) Notice(ctx context.Context, g scope.Grant, operator string, lang notice.Language) (Scope, notice.Notice, error) {
	sc, err := m.granted(g, scope.UseSettings)
	if err != nil {
		return Scope{}, notice.Notice{}, err
	}
	v := sc.view()
	n, err := notice.Write(v.noticeFacts(operator, lang), lang)
	if err != nil {
		return Scope{}, notice.Notice{}, err
	}
	return v, n, ctx.Err()
}

// noticeFacts are the settings that the notice tells. What a preset put in is
// told in the notice's language.
func (s Settings) noticeFacts(operator string, lang notice.Language) notice.Facts {
	f := notice.Facts{
		Operator: operator, Purpose: s.Purpose, Site: s.Site, Alternative: s.Alternative, LegalBasis: s.LegalBasis,
		Contact: s.Contact, Version: s.NoticeVersion, End: s.EndTime.UTC().Round(0), Retention: s.Retention,
		Transmission: s.TransmissionRequired, SingleUse: s.SingleUse, School: s.Preset == Campus,
	}
	if a, _ := s.Preset.advice(); s.Preset != "" {
		f.Alternative = a.Alternative.in(s.Alternative, lang)
		f.LegalBasis = a.LegalBasis.in(s.LegalBasis, lang)
	}
	return f
}

// in is the phrase in one language where the setting is the phrase, and
// otherwise the setting.
func (p Phrase) in(setting string, lang notice.Language) string {
	switch {
	case setting != p.String():
		return setting
	case lang == notice.Chinese:
		return p.Chinese
	}
	return p.English
}

// noticeChanged reports whether people would be told something else under the
// same version, so that nobody could tell who was told what.
func noticeChanged(before, after Settings) bool {
	return before.NoticeVersion == after.NoticeVersion &&
		before.noticeFacts("", notice.English) != after.noticeFacts("", notice.English)
}
