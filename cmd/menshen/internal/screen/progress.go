// Package screen shows how far a long job is: bars and a line that is rewritten
// on a terminal, a few plain lines everywhere else, so that a log of a run stays
// readable.
package screen

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// Terminal reports whether a stream is a terminal.
func Terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Progress shows a job of known or unknown length. It is used by one goroutine.
type Progress struct {
	out     io.Writer
	label   string
	unit    string
	total   int64
	done    int64
	quarter int64

	bars *mpb.Progress // nil without a terminal
	bar  *mpb.Bar
}

// NewProgress begins a job. The unit "bytes" writes sizes, anything else counts.
func NewProgress(out io.Writer, label, unit string) *Progress {
	p := &Progress{out: out, label: label, unit: unit}
	if !Terminal(out) {
		return p
	}
	count := decor.CountersNoUnit("%d / %d "+unit, decor.WCSyncSpaceR)
	if unit == "bytes" {
		count = decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpaceR)
	}
	p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(40), mpb.WithAutoRefresh())
	p.bar = p.bars.AddBar(0,
		mpb.PrependDecorators(decor.Name(label, decor.WCSyncSpaceR), count),
		mpb.AppendDecorators(decor.NewPercentage("%d "), decor.Elapsed(decor.ET_STYLE_GO)))
	return p
}

// Set tells how much is done. A total of 0 is not known.
func (p *Progress) Set(done, total int64) {
	p.done, p.total = done, total
	if p.bar != nil {
		p.bar.SetTotal(total, false)
		p.bar.SetCurrent(done)
		return
	}
	if total <= 0 {
		return
	}
	if quarter := 4 * done / total; quarter > p.quarter {
		p.quarter = quarter
		fmt.Fprintf(p.out, "%s: %d of %d %s\n", p.label, done, total, p.unit)
	}
}

// End leaves the bar as it stands and goes to the next line.
func (p *Progress) End() {
	if p.bar == nil {
		return
	}
	if p.done >= p.total && p.total > 0 {
		p.bar.SetTotal(p.total, true)
	} else {
		p.bar.Abort(false)
	}
	p.bars.Wait()
}

// Live is a line that is rewritten in place on a terminal, and printed afresh
// every few seconds elsewhere.
type Live struct {
	out      io.Writer
	terminal bool
	last     time.Time
}

// plainInterval is the time between two lines where there is no terminal.
const plainInterval = 3 * time.Second

// NewLive begins a live line.
func NewLive(out io.Writer) *Live {
	return &Live{out: out, terminal: Terminal(out), last: time.Now()}
}

// Show replaces the line. On a terminal it is cut to the width, for a line that
// wraps cannot be taken back.
func (l *Live) Show(text string) {
	if l.terminal {
		fmt.Fprintf(l.out, "\r\x1b[K%s", cut(text, width(l.out)))
		return
	}
	if time.Since(l.last) >= plainInterval {
		l.last = time.Now()
		fmt.Fprintln(l.out, text)
	}
}

// End removes the line from a terminal.
func (l *Live) End() {
	if l.terminal {
		fmt.Fprint(l.out, "\r\x1b[K")
	}
}

// defaultWidth is assumed of a terminal that does not tell its width.
const defaultWidth = 80

// width is the width of a terminal in characters.
func width(stream any) int {
	if f, ok := stream.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return defaultWidth
}

// cut keeps what fits into a line, and leaves the last column free.
func cut(text string, width int) string {
	runes := []rune(text)
	return string(runes[:min(len(runes), max(0, width-1))])
}
