package notice

import (
	"html"
	"strings"
)

// text writes the notice for a terminal or a mail. A fact with letters that run
// from right to left is set apart, so that it does not turn what follows around.
func (d document) text() string {
	var b strings.Builder
	b.WriteString(d.title + "\n")
	for _, s := range d.sections {
		b.WriteString("\n" + s.head + "\n")
		for _, l := range s.lines {
			b.WriteString("  ")
			for _, p := range l {
				if p.fact && runsLeft(p.text) {
					p.text = "\u2068" + p.text + "\u2069" // isolate, end of isolate (UAX 9)
				}
				b.WriteString(p.text)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// runsLeft reports whether a text has letters of scripts that are written from
// right to left: their blocks in the Unicode character database.
func runsLeft(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool {
		return r >= 0x0590 && r <= 0x08ff || r >= 0xfb1d && r <= 0xfdff || r >= 0xfe70 && r <= 0xfeff || r >= 0x10800 && r <= 0x10fff || r >= 0x1e800 && r <= 0x1efff
	})
}

// style fits phones, screens and paper; nothing is loaded from anywhere.
const style = `body{margin:0;background:#fff;color:#1a1a1a;font:1.05rem/1.6 system-ui,-apple-system,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif}
main{max-width:42rem;margin:0 auto;padding:1.25rem 1rem 3rem}
h1{font-size:1.5rem;line-height:1.3;margin:0 0 1rem}
h2{font-size:1.1rem;margin:1.4rem 0 .3rem}
p{margin:.3rem 0}
h1,h2,p{overflow-wrap:anywhere}
bdi{font-weight:600}
@page{margin:18mm}
@media print{body{font-size:10.5pt;line-height:1.45}main{max-width:none;padding:0}section{break-inside:avoid}}`

// html writes the notice as one page. Facts are escaped text in elements that
// keep their direction to themselves; the policy forbids scripts and anything
// from elsewhere, whatever came in.
func (d document) html() string {
	var b strings.Builder
	b.WriteString("<!doctype html>\n<html lang=\"" + d.tag + "\">\n<head>\n<meta charset=\"utf-8\">\n" +
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n" +
		"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n" +
		"<title>" + html.EscapeString(d.title) + "</title>\n<style>\n" + style + "\n</style>\n</head>\n<body>\n<main>\n<h1>" + html.EscapeString(d.title) + "</h1>\n")
	for _, s := range d.sections {
		b.WriteString("<section>\n<h2>" + html.EscapeString(s.head) + "</h2>\n")
		for _, l := range s.lines {
			b.WriteString("<p>")
			for _, p := range l {
				text := html.EscapeString(p.text)
				if p.fact {
					text = "<bdi>" + text + "</bdi>"
				}
				b.WriteString(text)
			}
			b.WriteString("</p>\n")
		}
		b.WriteString("</section>\n")
	}
	b.WriteString("</main>\n</body>\n</html>\n")
	return b.String()
}
