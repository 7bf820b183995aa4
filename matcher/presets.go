package matcher

import "time"

// Preset names a kind of place. A scope that is created with one gets settings
// that suit such places wherever its operator left them open. The zero Preset is
// none. The names stand in records: they never change.
type Preset string

// The presets.
const (
	Exhibition Preset = "exhibition"
	Campus     Preset = "campus"
	Gym        Preset = "gym"
	Locker     Preset = "locker"
	Residence  Preset = "residence"
	Workplace  Preset = "workplace"
)

// Advice is what a preset says about a kind of place. Thresholds are not among
// it: they are the model's.
type Advice struct {
	Preset Preset
	// For is the place in a few words, and Why the reasons for the settings.
	For, Why string
	// Alternative and LegalBasis are told to people in both languages.
	Alternative, LegalBasis Phrase
	// Retention is how long a subject is kept at most.
	Retention time.Duration
	// Period is the scope's life where the operator names no end; 0: the purpose
	// has an end that only the operator knows, who must name it.
	Period       time.Duration
	MaxTemplates int // 0: the default
	// Transmission and SingleUse can be turned on by a preset and by the
	// operator, and off by neither.
	Transmission, SingleUse bool
}

// Phrase is a text in two languages. As a setting it is both, so that gates and
// notices of either language can show it.
type Phrase struct{ English, Chinese string }

func (p Phrase) String() string { return p.English + " / " + p.Chinese }

const (
	day  = 24 * time.Hour
	year = 366 * day
)

// separateConsent is what the law asks for before a face is processed (PIPL,
// articles 13 and 29).
var separateConsent = Phrase{"the person's separate consent", "个人的单独同意"}

// advice is the table of presets; COMPLIANCE.md's cases are what stands behind
// the reasons.
var advice = []Advice{
	{
		Preset: Exhibition, For: "a fair or an exhibition", Retention: 30 * day, LegalBasis: separateConsent,
		Alternative: Phrase{"the staffed lane, with ticket or ID card", "人工通道，出示门票或身份证件即可入场"},
		Why:         "Everybody leaves when the fair is over, so the scope ends with its last day, which the operator names; thirty days cover early registration. The ID card stays valid in the staffed lane.",
	},
	{
		Preset: Campus, For: "a school: entry, canteen", Retention: year, Transmission: true, LegalBasis: separateConsent,
		Alternative: Phrase{"the campus card, at every gate and counter", "各出入口和窗口均可使用校园卡"},
		Why:         "Parents agree for one school year at one school, and the operator names its end; who leaves is erased and may come back as a new subject. Parents fear leaks most, so sending templates over a network needs their separate consent.",
	},
	{
		Preset: Gym, For: "a gym or a club", Retention: year, Period: year, Transmission: true, LegalBasis: separateConsent,
		Alternative: Phrase{"the membership card or the front desk", "出示会员卡，或由前台办理入场"},
		Why:         "Face-only gyms left members no choice and front desks could not delete. A year is the longest usual membership; set each member's own end when enrolling. Chains keep one server for many houses, so transmission needs consent.",
	},
	{
		Preset: Locker, For: "lockers for visitors or shoppers", Retention: 12 * time.Hour, Period: year, MaxTemplates: 1, Transmission: true, SingleUse: true, LegalBasis: separateConsent,
		Alternative: Phrase{"a printed code or a key from the service desk", "使用密码条，或到服务台领取钥匙"},
		Why:         "A locker is opened once, so a template is used once and then erased, and after twelve hours in any case. Nobody knew where and how long such faces were kept; lockers are often served from elsewhere, so transmission needs consent.",
	},
	{
		Preset: Residence, For: "a housing compound", Retention: year, Period: year, Transmission: true, LegalBasis: separateConsent,
		Alternative: Phrase{"the door card, the key or the guard on duty", "使用门禁卡、钥匙，或由值班人员开门"},
		Why:         "People cannot choose another home, so every door keeps its card. Consent is asked anew each year; use pseudonyms that name no flat. Property firms are served from elsewhere, so transmission needs consent.",
	},
	{
		Preset: Workplace, For: "offices and works: staff only", Retention: year, Period: year, LegalBasis: separateConsent,
		Alternative: Phrase{"the staff card or the reception", "使用工作证，或由前台登记进入"},
		Why:         "Staff only: guests are never enrolled and must not be forced. Who is employed is not free to refuse unless the staff card opens every door; consent is asked anew each year.",
	},
}

// Presets lists what the presets say, in a fixed order.
func Presets() []Advice { return append([]Advice(nil), advice...) }

// advice finds what the preset says; nothing for none.
func (p Preset) advice() (Advice, bool) {
	for _, a := range advice {
		if a.Preset == p {
			return a, true
		}
	}
	return Advice{}, p == ""
}

// withPreset fills what the operator left open with what the preset says.
func (s Settings) withPreset(v *checks, now time.Time) Settings {
	a, known := s.Preset.advice()
	v.require(known, "preset", "%q is no preset: exhibition, campus, gym, locker, residence and workplace are", string(s.Preset))
	if !known || s.Preset == "" {
		return s
	}
	if s.Alternative == "" {
		s.Alternative = a.Alternative.String()
	}
	if s.LegalBasis == "" {
		s.LegalBasis = a.LegalBasis.String()
	}
	if s.Retention == 0 {
		s.Retention = a.Retention
	}
	if s.EndTime.IsZero() && a.Period > 0 {
		s.EndTime = now.Add(a.Period).Truncate(time.Second)
	}
	if s.MaxTemplates == 0 {
		s.MaxTemplates = a.MaxTemplates
	}
	s.CurrentNoticeRequired = true // what a preset asks of people is told in the notice
	s.TransmissionRequired = s.TransmissionRequired || a.Transmission
	s.SingleUse = s.SingleUse || a.SingleUse
	return s
}
