package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// printMessage writes one proto message as indented JSON with the field names
// of the .proto files.
func (c *cli) printMessage(m proto.Message) error {
	raw, err := messageJSON(m)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s\n", out.Bytes())
	return err
}

// messageJSON gives a proto message as compact JSON. (protojson varies its
// white space on purpose; this does not.)
func messageJSON(m proto.Message) (json.RawMessage, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Compact(&out, raw)
	return out.Bytes(), err
}

// printJSON writes any value as indented JSON.
func (c *cli) printJSON(v any) error {
	enc := json.NewEncoder(c.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table collects rows and writes them in aligned columns.
type table struct {
	rows [][]string
}

// newTable begins a table with its column heads.
func newTable(heads ...string) *table { return &table{rows: [][]string{heads}} }

// row adds a row. An empty cell is printed as "-".
func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the table, or none when it has no row.
func (c *cli) printTable(t *table, none string) error {
	if len(t.rows) == 1 {
		_, err := fmt.Fprintln(c.stdout, none)
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for _, cells := range t.rows {
		for i, cell := range cells {
			if cell == "" {
				cell = "-"
			}
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, oneLine(cell))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// printFields writes "name  value" lines; values that are empty are left out.
func (c *cli) printFields(pairs ...string) error {
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], oneLine(pairs[i+1]))
		}
	}
	return w.Flush()
}

// oneLine keeps text that others wrote (a purpose, a file name) from breaking
// the terminal: control characters become spaces.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// timeText writes an instant in UTC to the second; empty for none.
func timeText(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// durationText writes a duration, whole days as days and whole hours as hours; empty for none.
func durationText(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	v := d.AsDuration()
	if day := 24 * time.Hour; v > 0 && v%day == 0 {
		return fmt.Sprintf("%dd", v/day)
	}
	if v > 0 && v%time.Hour == 0 {
		return fmt.Sprintf("%dh", v/time.Hour)
	}
	return v.String()
}
