package notice

import (
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func hall() Facts {
	return Facts{
		Operator: "Acme Fairs Ltd", Purpose: "entry to the Autumn Fair", Site: "Hall A", Alternative: "the staffed lane", LegalBasis: "separate consent",
		Contact: "desk 3, 010-5550-0100", Version: "3", End: time.Date(2027, 10, 5, 10, 0, 0, 0, time.UTC), Retention: 30 * 24 * time.Hour,
	}
}

func write(t *testing.T, f Facts, lang Language) Notice {
	t.Helper()
	n, err := Write(f, lang)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var gaps = regexp.MustCompile(`\{[^}]*\}`)

// Both languages say the same things, under the same conditions, with the same
// facts; and every gap is that of a fact.
func TestLanguagesSayTheSame(t *testing.T) {
	if len(english.sections) != len(chinese.sections) {
		t.Fatalf("%d sections and %d", len(english.sections), len(chinese.sections))
	}
	used := map[string]bool{}
	for i, en := range english.sections {
		zh := chinese.sections[i]
		if len(en.lines) != len(zh.lines) {
			t.Fatalf("%q has %d lines, %q has %d", en.head, len(en.lines), zh.head, len(zh.lines))
		}
		for k := range en.lines {
			if reflect.ValueOf(en.lines[k].when).Pointer() != reflect.ValueOf(zh.lines[k].when).Pointer() {
				t.Errorf("%q and %q differ in when they are said", en.lines[k].text, zh.lines[k].text)
			}
			a, b := gaps.FindAllString(en.lines[k].text, -1), gaps.FindAllString(zh.lines[k].text, -1)
			if !reflect.DeepEqual(a, b) {
				t.Errorf("%q has the gaps %v, %q has %v", en.lines[k].text, a, zh.lines[k].text, b)
			}
			for _, gap := range a {
				used[gap] = true
			}
		}
	}
	// Every fact is told, and nothing else has a gap.
	for _, name := range []string{"operator", "purpose", "site", "alternative", "legal-basis", "contact", "version", "end", "retention", "decisions"} {
		if !used["{"+name+"}"] {
			t.Errorf("%s is told nowhere", name)
		}
		delete(used, "{"+name+"}")
	}
	if len(used) > 0 {
		t.Errorf("unknown gaps %v", used)
	}
}

// What a person must be told is in the notice, whatever the settings.
func TestSaysWhatItMust(t *testing.T) {
	f := hall()
	for lang, wants := range map[Language][]string{
		English: {"Operator: Acme Fairs Ltd", "Purpose: entry to the Autumn Fair", "Where: Hall A", "Legal basis: separate consent", "Instead you can use: the staffed lane",
			"desk 3, 010-5550-0100", "at most 30 days", "5 October 2027, 18:00 (UTC+8)", "The picture is not kept", "cannot be matched at any other place", "withdraw your consent",
			"under 14", "Version: 3", "over the internet unless"},
		Chinese: {"运营方：Acme Fairs Ltd", "目的：entry to the Autumn Fair", "地点：Hall A", "处理依据：separate consent", "您可以改用以下方式：the staffed lane",
			"desk 3, 010-5550-0100", "最多保存30天", "2027年10月5日18:00（北京时间）", "图像不予保存", "其他任何场所", "随时撤回同意", "不满十四周岁", "版本：3", "不会通过互联网对外传输"},
	} {
		n := write(t, f, lang)
		for _, want := range wants {
			if !strings.Contains(n.Text, want) {
				t.Errorf("%s: nothing of %q in\n%s", lang, want, n.Text)
			}
		}
		if n.Language != lang || !strings.HasPrefix(n.Text, n.Title+"\n") || !strings.Contains(n.HTML, "<title>"+n.Title+"</title>") {
			t.Errorf("%s: title %q", lang, n.Title)
		}
		if again := write(t, f, lang); again != n {
			t.Errorf("%s: the same facts give another notice", lang)
		}
		if got := shown(t, n.HTML); squeeze(got) != squeeze(n.Text) {
			t.Errorf("%s: the page says\n%s\nand the text\n%s", lang, got, n.Text)
		}
	}
}

// Each setting changes what is said, in both languages.
func TestEverySettingIsTold(t *testing.T) {
	for name, change := range map[string]func(*Facts){
		"operator": func(f *Facts) { f.Operator = "x" }, "purpose": func(f *Facts) { f.Purpose = "x" }, "site": func(f *Facts) { f.Site = "x" },
		"alternative": func(f *Facts) { f.Alternative = "x" }, "legal basis": func(f *Facts) { f.LegalBasis = "x" },
		"contact": func(f *Facts) { f.Contact = "x" }, "no contact": func(f *Facts) { f.Contact = "" },
		"version": func(f *Facts) { f.Version = "4" }, "decisions": func(f *Facts) { f.Decisions = 24 * time.Hour },
		"end": func(f *Facts) { f.End = f.End.Add(-time.Second) }, "retention": func(f *Facts) { f.Retention += time.Second },
		"no retention": func(f *Facts) { f.Retention = 0 }, "transmission": func(f *Facts) { f.Transmission = true },
		"single use": func(f *Facts) { f.SingleUse = true }, "school": func(f *Facts) { f.School = true },
		"single use, no retention": func(f *Facts) { f.SingleUse, f.Retention = true, 0 },
	} {
		f := hall()
		change(&f)
		for _, lang := range []Language{English, Chinese} {
			a, b := write(t, hall(), lang), write(t, f, lang)
			if a.Text == b.Text || a.HTML == b.HTML {
				t.Errorf("%s: %s is not told", lang, name)
			}
		}
	}
}

// The digest changes with whatever is told, and with nothing else.
func TestDigest(t *testing.T) {
	seen := map[string]string{hall().Digest(): "nothing changed"}
	for name, change := range map[string]func(*Facts){
		"purpose": func(f *Facts) { f.Purpose = "x" }, "site": func(f *Facts) { f.Site = "x" }, "alternative": func(f *Facts) { f.Alternative = "x" },
		"legal basis": func(f *Facts) { f.LegalBasis = "x" }, "contact": func(f *Facts) { f.Contact = "x" },
		"shifted":   func(f *Facts) { f.LegalBasis, f.Contact = f.LegalBasis+f.Contact[:1], f.Contact[1:] },
		"end":       func(f *Facts) { f.End = f.End.Add(time.Second) },
		"retention": func(f *Facts) { f.Retention += time.Second }, "decisions": func(f *Facts) { f.Decisions = time.Hour },
		"swapped":      func(f *Facts) { f.Retention, f.Decisions = 0, f.Retention },
		"transmission": func(f *Facts) { f.Transmission = true }, "single use": func(f *Facts) { f.SingleUse = true }, "school": func(f *Facts) { f.School = true },
	} {
		f := hall()
		change(&f)
		got := f.Digest()
		if other, taken := seen[got]; taken || len(got) != 8 {
			t.Errorf("%s: %q, as with %s", name, got, other)
		}
		seen[got] = name
	}
	f := hall()
	f.Operator, f.Version, f.End = "somebody else", "9", f.End.In(zone)
	if f.Digest() != hall().Digest() {
		t.Error("the digest depends on the operator, the version or the zone")
	}
}

// Who changes the wording raises the edition: people are then told something
// else, under another version. Then the new digest goes in here.
func TestEdition(t *testing.T) {
	h := sha256.New()
	for _, lang := range []wording{english, chinese} {
		fmt.Fprintln(h, lang.tag, lang.title)
		for _, s := range lang.sections {
			fmt.Fprintln(h, s.head)
			for _, l := range s.lines {
				fmt.Fprintln(h, l.text)
			}
		}
	}
	const told = "1 a47456223be9d51c"
	if got := fmt.Sprintf("%d %x", edition, h.Sum(nil)[:8]); got != told {
		t.Errorf("the wording is %s, the test knows %s: raise the edition", got, told)
	}
}

func TestTimes(t *testing.T) {
	for d, want := range map[time.Duration][2]string{
		12 * time.Hour:                           {"12 hours", "12小时"},
		24*time.Hour + time.Minute + time.Second: {"1 day 1 minute 1 second", "1天1分钟1秒"},
		366 * 24 * time.Hour:                     {"366 days", "366天"},
		time.Second + time.Millisecond:           {"1 second", "1秒"},
	} {
		if en, zh := english.duration(d), chinese.duration(d); en != want[0] || zh != want[1] {
			t.Errorf("%v is %q and %q, want %q", d, en, zh, want)
		}
	}
	at := time.Date(2026, 12, 31, 16, 0, 7, 0, time.UTC)
	if en, zh := english.instant(at), chinese.instant(at); en != "1 January 2027, 00:00:07 (UTC+8)" || zh != "2027年1月1日00:00:07（北京时间）" {
		t.Errorf("%v is %q and %q", at, en, zh)
	}
}

func TestParseLanguage(t *testing.T) {
	for tag, want := range map[string]Language{"": English, "en": English, "EN-gb": English, "zh": Chinese, "zh-CN": Chinese, "zh-Hans": Chinese, "fr": "", "english": "", "-": English} {
		got, err := ParseLanguage(tag)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrLanguage) {
			t.Errorf("%q is %q, %v; want %q", tag, got, err, want)
		}
	}
	if _, err := Write(hall(), "fr"); !errors.Is(err, ErrLanguage) {
		t.Errorf("writing French: %v", err)
	}
}

// Whatever the operator wrote is shown as text: no markup, no script, nothing
// that turns the direction of the page or breaks its lines.
func TestHostileFacts(t *testing.T) {
	attacks := []string{
		`</title><script>alert(1)</script>`, `<img src=x onerror=alert(1)>`, `" onload="alert(1)`, `'><svg/onload=alert(1)>`, `&lt;script&gt;`, `</bdi></p></main><h1>free entry</h1>`,
		`{operator}{end}{nothing}`, "{", "}", "a\u202eb\u2066c\u200fd", "\u2028line\u2029", "tab\tnew\nline\x00\x1b[31mred", "\xff\xfe", strings.Repeat("W", 1000), strings.Repeat("<", 1000), "שלום عربي", "<!--", "]]>",
	}
	for _, attack := range attacks {
		f := hall()
		f.Operator, f.Purpose, f.Site, f.Alternative, f.LegalBasis, f.Contact, f.Version = attack, attack, attack, attack, attack, attack, attack
		for _, lang := range []Language{English, Chinese} {
			n := write(t, f, lang)
			if !utf8.ValidString(n.Text) || !utf8.ValidString(n.HTML) {
				t.Fatalf("%q: no valid UTF-8", attack)
			}
			want := write(t, hall(), lang)
			if got := tags(t, n.HTML); !reflect.DeepEqual(got, tags(t, want.HTML)) {
				t.Errorf("%q changes the elements of the page: %v", attack, got)
			}
			if strings.Count(n.Text, "\n") != strings.Count(want.Text, "\n") {
				t.Errorf("%q changes the lines of the text", attack)
			}
			for _, text := range []string{n.Text, n.HTML} {
				if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && r != '\u2068' && r != '\u2069' && !unicode.IsGraphic(r) }); i >= 0 {
					t.Errorf("%q leaves %q in the notice", attack, text[i:min(len(text), i+6)])
				}
			}
			if strings.Count(n.Text, "\u2068") != strings.Count(n.Text, "\u2069") {
				t.Errorf("%q: isolates are not closed", attack)
			}
			if runsLeft(attack) && !strings.Contains(n.Text, "\u2068"+attack+"\u2069") {
				t.Errorf("%q is not set apart in the text", attack)
			}
			if got := shown(t, n.HTML); unicode.IsGraphic([]rune(attack)[0]) && strings.Count(got, visible(attack)) < 7 {
				t.Errorf("%q is not shown seven times in\n%s", attack, got)
			}
		}
	}
	for _, lang := range []Language{English, Chinese} {
		if page := write(t, hall(), lang).HTML; regexp.MustCompile(`(?i)https?:|src=|href=|@import|url\(|<script`).MatchString(page) {
			t.Errorf("%s: the page loads something", lang)
		}
	}
}

// decoder reads the page as strict XML, which it is but for its void elements.
func decoder(page string) *xml.Decoder {
	d := xml.NewDecoder(strings.NewReader(regexp.MustCompile(`<meta [^>]*>`).ReplaceAllString(strings.TrimPrefix(page, "<!doctype html>\n"), "")))
	d.Entity = xml.HTMLEntity
	return d
}

// tags are the elements of a page in their order, with their attributes.
func tags(t *testing.T, page string) (out []string) {
	t.Helper()
	for d := decoder(page); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("the page is not well formed: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok {
			name := e.Name.Local
			for _, a := range e.Attr {
				name += " " + a.Name.Local + "=" + a.Value
			}
			out = append(out, name)
		}
	}
}

// shown is what a reader of the page sees: its body's text.
func shown(t *testing.T, page string) string {
	t.Helper()
	_, body, ok := strings.Cut(page, "<main>")
	if !ok {
		t.Fatal("no <main> in the page")
	}
	return html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, ""))
}

// squeeze drops white space.
func squeeze(text string) string { return strings.Join(strings.Fields(text), "") }
