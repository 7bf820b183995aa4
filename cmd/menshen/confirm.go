package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/menshen-io/menshen/cmd/menshen/internal/screen"
)

// deed is something that cannot be undone, and is asked about before.
type deed struct {
	verb, noun, done string // "revoke", "revoking", "revoked"
	name             string // of what it is done to; its last part must be typed
}

// confirm shows what is about to happen, which about looks up, and wants the id
// typed. Without a terminal it refuses.
func (c *cli) confirm(d deed, about func() (string, error)) error {
	if !screen.Terminal(c.stdin) {
		return usagef("%s %s cannot be undone, and there is no terminal to ask at; give --yes if it is meant", d.noun, d.name)
	}
	text, err := about()
	if err != nil {
		return err
	}
	return d.ask(c.stdin, c.stderr, text)
}

// ask wants the id typed. Nothing else is a yes.
func (d deed) ask(in io.Reader, out io.Writer, about string) error {
	id := d.name[strings.LastIndexByte(d.name, '/')+1:]
	fmt.Fprintf(out, "%s. This cannot be undone.\nType %s to %s it: ", about, id, d.verb)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && line == "" {
		return fmt.Errorf("nothing was %s: no answer: %w", d.done, err)
	}
	if answer := strings.TrimSpace(line); answer != id {
		return fmt.Errorf("nothing was %s: %q is not %q", d.done, answer, id)
	}
	return nil
}
