package matcher

import (
	"context"
	"fmt"

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
		Contact: s.Contact, End: s.EndTime.UTC().Round(0), Retention: s.Retention,
		Transmission: s.TransmissionRequired, SingleUse: s.SingleUse, School: s.Preset == Campus,
	}
	if s.DecisionAudit != "" {
		f.Decisions = max(s.AuditRetention, MinAuditRetention)
	}
	f.Version = f.Digest() // of the settings as they are: the same in both languages
	if s.NoticeVersion != "" {
		f.Version = s.NoticeVersion + "-" + f.Version
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

// CurrentNotice is the version of the notice as the settings are now: the
// operator's NoticeVersion, if there is one, and a digest of what the notice says.
func (s Settings) CurrentNotice() string { return s.noticeFacts("", notice.English).Version }

// maxNoticeVersion bounds the operator's part of it, so that a consent can name
// the whole.
const maxNoticeVersion = MaxReference - len("-01234567")

// checkNotice refuses a consent to another notice than the present one, where the
// scope demands the present one.
func (s Settings) checkNotice(ref scope.Ref, c Consent) error {
	if !s.CurrentNoticeRequired || c.NoticeVersion == s.CurrentNotice() {
		return nil
	}
	return fmt.Errorf("%w: the notice of %s has another version; fetch it, show it to the person, and name the version that stands in it (consent.notice_version)", ErrNoticeNotCurrent, ref)
}
