package reference

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// fields splits a protobuf message into its fields, in order.
func fields(t *testing.T, b []byte) (numbers []protowire.Number, values [][]byte) {
	t.Helper()
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatalf("bad tag: %v", protowire.ParseError(n))
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			t.Fatalf("bad value of field %d: %v", num, protowire.ParseError(m))
		}
		v := b[n : n+m]
		if typ == protowire.BytesType {
			v, _ = protowire.ConsumeBytes(v)
		}
		numbers, values = append(numbers, num), append(values, v)
		b = b[n+m:]
	}
	return numbers, values
}

// The encoder's output against protobuf bytes worked out by hand from
// onnx.proto3.
func TestEncoding(t *testing.T) {
	g := &graph{name: "g"}
	g.inputs = append(g.inputs, valueInfo("x", 2))
	g.node("Pad", "y", []string{"x", "w"}, intsAttr("p", 1, 300), intAttr("k", -1))
	g.floats("w", []float32{1}, 1)
	want := "" +
		"\x08\x08" + // ir_version 8
		"\x12\x01P" + // producer_name
		"\x32\x01D" + // doc_string
		"\x3a\x5b" + // graph, 91 bytes
		"\x0a\x31" + // node, 49 bytes
		"\x0a\x01x\x0a\x01w\x12\x01y\x1a\x01y\x22\x03Pad" +
		"\x2a\x0b\x0a\x01p\x40\x01\x40\xac\x02\xa0\x01\x07" + // attribute p, ints
		"\x2a\x11\x0a\x01k\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xa0\x01\x02" + // attribute k, int
		"\x12\x01g" + // graph name
		"\x2a\x0d\x08\x01\x10\x01\x42\x01w\x4a\x04\x00\x00\x80\x3f" + // initializer
		"\x5a\x14\x0a\x01x\x12\x0f\x0a\x0d\x08\x01\x12\x09\x0a\x03\x12\x01N\x0a\x02\x08\x02" + // input
		"\x42\x04\x0a\x00\x10\x11" // opset_import: default domain, version 17
	if got := string(g.model("P", "D")); got != want {
		t.Errorf("encoded\n%q, want\n%q", got, want)
	}
}

// Every node's inputs are the graph's input, a constant or an earlier output,
// no name is given twice, and no constant is unused.
func TestGraphIsConnected(t *testing.T) {
	model, err := Model()
	if err != nil {
		t.Fatal(err)
	}
	numbers, values := fields(t, model)
	known, used := map[string]bool{}, map[string]bool{}
	declare := func(name string) {
		if known[name] {
			t.Errorf("%s is given twice", name)
		}
		known[name] = true
	}
	for i, n := range numbers {
		if n != 7 { // graph
			continue
		}
		numbers, values := fields(t, values[i])
		for pass, wanted := range []protowire.Number{5, 11, 1, 12} { // constants, inputs, nodes, outputs
			for i, n := range numbers {
				if n != wanted {
					continue
				}
				numbers, values := fields(t, values[i])
				for j, f := range numbers {
					name := string(values[j])
					switch {
					case pass == 0 && f == 8, pass == 1 && f == 1, pass == 2 && f == 2:
						declare(name)
					case pass == 2 && f == 1, pass == 3 && f == 1:
						used[name] = true
						if !known[name] {
							t.Errorf("%s is used before it is given", name)
						}
					}
				}
			}
		}
	}
	for name := range known {
		if !used[name] {
			t.Errorf("%s is never used", name)
		}
	}
	if !known["embedding"] || !known["input"] {
		t.Errorf("no node gives the embedding: %v", known)
	}
}
