package reference

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// The subset of onnx.proto3 that the graph needs, written field by field.
// Field numbers and enum values are those of the ONNX specification, IR
// version 8, operator set 17.
const (
	irVersion    = 8
	opsetVersion = 17

	elemFloat = 1
	elemInt8  = 3

	attrInt  = 2
	attrInts = 7
)

// message is a protobuf message under construction. Fields are appended in
// the order of the calls, so equal calls give equal bytes.
type message struct{ b []byte }

func (m *message) varint(field protowire.Number, v int64) {
	m.b = protowire.AppendTag(m.b, field, protowire.VarintType)
	m.b = protowire.AppendVarint(m.b, uint64(v))
}

func (m *message) bytes(field protowire.Number, v []byte) {
	m.b = protowire.AppendTag(m.b, field, protowire.BytesType)
	m.b = protowire.AppendBytes(m.b, v)
}

func (m *message) string(field protowire.Number, v string) { m.bytes(field, []byte(v)) }

func (m *message) message(field protowire.Number, v message) { m.bytes(field, v.b) }

// attribute is one named attribute of a node, already encoded.
type attribute struct{ m message }

func attr(name string, kind int64, value func(*message)) attribute {
	var a attribute
	a.m.string(1, name)
	value(&a.m)
	a.m.varint(20, kind)
	return a
}

func intAttr(name string, v int64) attribute {
	return attr(name, attrInt, func(m *message) { m.varint(3, v) })
}

func intsAttr(name string, v ...int64) attribute {
	return attr(name, attrInts, func(m *message) {
		for _, x := range v {
			m.varint(8, x)
		}
	})
}

// graph collects nodes and constants; model turns them into a ModelProto.
type graph struct {
	name         string
	nodes        []message
	initializers []message
	inputs       []message
	outputs      []message
}

// node appends an operator with one output, named as given, and returns that
// name so that calls can be chained.
func (g *graph) node(op, output string, inputs []string, attrs ...attribute) string {
	var n message
	for _, in := range inputs {
		n.string(1, in)
	}
	n.string(2, output)
	n.string(3, output)
	n.string(4, op)
	for _, a := range attrs {
		n.message(5, a.m)
	}
	g.nodes = append(g.nodes, n)
	return output
}

func (g *graph) tensor(name string, elem int64, raw []byte, dims []int64) string {
	var t message
	for _, d := range dims {
		t.varint(1, d)
	}
	t.varint(2, elem)
	t.string(8, name)
	t.bytes(9, raw)
	g.initializers = append(g.initializers, t)
	return name
}

// floats appends a float32 constant; len(v) must be the product of dims.
func (g *graph) floats(name string, v []float32, dims ...int64) string {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return g.tensor(name, elemFloat, raw, dims)
}

// int8s appends an int8 constant; len(v) must be the product of dims.
func (g *graph) int8s(name string, v []int8, dims ...int64) string {
	raw := make([]byte, len(v))
	for i, x := range v {
		raw[i] = byte(x)
	}
	return g.tensor(name, elemInt8, raw, dims)
}

// valueInfo describes a float tensor whose first dimension is the batch "N".
func valueInfo(name string, dims ...int64) message {
	var shape message
	var batch message
	batch.string(2, "N")
	shape.message(1, batch)
	for _, d := range dims {
		var dim message
		dim.varint(1, d)
		shape.message(1, dim)
	}
	var tensor, typ, info message
	tensor.varint(1, elemFloat)
	tensor.message(2, shape)
	typ.message(1, tensor)
	info.string(1, name)
	info.message(2, typ)
	return info
}

// model encodes the graph as a ModelProto.
func (g *graph) model(producer, doc string) []byte {
	var gr message
	for _, n := range g.nodes {
		gr.message(1, n)
	}
	gr.string(2, g.name)
	for _, t := range g.initializers {
		gr.message(5, t)
	}
	for _, v := range g.inputs {
		gr.message(11, v)
	}
	for _, v := range g.outputs {
		gr.message(12, v)
	}
	var opset message
	opset.string(1, "")
	opset.varint(2, opsetVersion)

	var m message
	m.varint(1, irVersion)
	m.string(2, producer)
	m.string(6, doc)
	m.message(7, gr)
	m.message(8, opset)
	return m.b
}
