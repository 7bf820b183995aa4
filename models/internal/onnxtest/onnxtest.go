// Package onnxtest writes small ONNX models for tests: embedders with known
// answers, a detector that always sees the same faces, models that are slow or
// wrong. It promises files that ONNX Runtime loads, and nothing about what they
// would be good for outside tests.
package onnxtest

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Element types of ONNX tensors.
const (
	Float = 1
	Int64 = 7
	Bool  = 9
)

// Value is a graph input or output. A negative dimension is open.
type Value struct {
	Name string
	Elem int
	Dims []int64
}

// Const is a float32 tensor that is part of the model.
type Const struct {
	Name string
	Dims []int64
	Data []float32
}

// Node is one operation of opset 13. Ints are its integer-list attributes,
// Int its integer attributes, Body is that of a loop.
type Node struct {
	Op   string
	In   []string
	Out  []string
	Ints map[string][]int64
	Int  map[string]int64
	Body *Graph
}

// Graph is a model.
type Graph struct {
	Inputs, Outputs []Value
	Consts          []Const
	Nodes           []Node
}

// Bytes returns the model as an ONNX file (ModelProto, IR version 7).
func (g Graph) Bytes() []byte {
	var opset message
	opset.str(1, "")
	opset.num(2, 13)
	var model message
	model.num(1, 7)
	model.bytes(7, g.message())
	model.bytes(8, opset)
	return model
}

func (g Graph) message() message {
	var graph message
	for i, n := range g.Nodes {
		var m message
		for _, s := range n.In {
			m.str(1, s)
		}
		for _, s := range n.Out {
			m.str(2, s)
		}
		m.str(3, fmt.Sprintf("n%d", i))
		m.str(4, n.Op)
		for name, vs := range n.Ints {
			var a message
			a.str(1, name)
			for _, v := range vs {
				a.num(8, uint64(v))
			}
			a.num(20, 7)
			m.bytes(5, a)
		}
		for name, v := range n.Int {
			var a message
			a.str(1, name)
			a.num(3, uint64(v))
			a.num(20, 2)
			m.bytes(5, a)
		}
		if n.Body != nil {
			var a message
			a.str(1, "body")
			a.bytes(6, n.Body.message())
			a.num(20, 5)
			m.bytes(5, a)
		}
		graph.bytes(1, m)
	}
	graph.str(2, "g")
	for _, c := range g.Consts {
		var m message
		for _, d := range c.Dims {
			m.num(1, uint64(d))
		}
		m.num(2, Float)
		m.str(8, c.Name)
		raw := make([]byte, 0, 4*len(c.Data))
		for _, v := range c.Data {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
		m.bytes(9, raw)
		graph.bytes(5, m)
	}
	for _, v := range g.Inputs {
		graph.bytes(11, v.message())
	}
	for _, v := range g.Outputs {
		graph.bytes(12, v.message())
	}
	return graph
}

func (v Value) message() message {
	var shape message
	for i, d := range v.Dims {
		var dim message
		if d < 0 {
			dim.str(2, fmt.Sprintf("%s_d%d", v.Name, i))
		} else {
			dim.num(1, uint64(d))
		}
		shape.bytes(1, dim)
	}
	var tensor, typ, m message
	tensor.num(1, uint64(v.Elem))
	tensor.bytes(2, shape)
	typ.bytes(1, tensor)
	m.str(1, v.Name)
	m.bytes(2, typ)
	return m
}

// message is a protobuf message under construction.
type message []byte

func (m *message) num(field int, v uint64) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3)
	*m = binary.AppendUvarint(*m, v)
}

func (m *message) bytes(field int, b []byte) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|2)
	*m = binary.AppendUvarint(*m, uint64(len(b)))
	*m = append(*m, b...)
}

func (m *message) str(field int, s string) { m.bytes(field, []byte(s)) }

// MeanEmbedder returns an embedder for batch x 3 x 112 x 112 (batch -1: open)
// whose embedding is the mean of each input plane: 3 dimensions.
func MeanEmbedder(batch int64) []byte {
	return Graph{
		Inputs:  []Value{{"input", Float, []int64{batch, 3, 112, 112}}},
		Outputs: []Value{{"output", Float, []int64{batch, 3}}},
		Nodes:   []Node{mean("input", "output")},
	}.Bytes()
}

// LogEmbedder is MeanEmbedder on the logarithm of the input: NaN where a plane
// has a negative value.
func LogEmbedder() []byte {
	return Graph{
		Inputs:  []Value{{"input", Float, []int64{1, 3, 112, 112}}},
		Outputs: []Value{{"output", Float, []int64{1, 3}}},
		Nodes:   []Node{{Op: "Log", In: []string{"input"}, Out: []string{"log"}}, mean("log", "output")},
	}.Bytes()
}

// SlowEmbedder is MeanEmbedder after a chain of steps sines: about a third of a
// millisecond each.
func SlowEmbedder(steps int) []byte {
	g := Graph{
		Inputs:  []Value{{"input", Float, []int64{1, 3, 112, 112}}},
		Outputs: []Value{{"output", Float, []int64{1, 3}}},
	}
	last := "input"
	for i := range steps {
		next := fmt.Sprintf("s%d", i)
		g.Nodes = append(g.Nodes, Node{Op: "Sin", In: []string{last}, Out: []string{next}})
		last = next
	}
	g.Nodes = append(g.Nodes, mean(last, "output"))
	return g.Bytes()
}

// EndlessEmbedder is MeanEmbedder after a loop that does not end, where any value
// of the input is above 0; where none is, it is as quick as MeanEmbedder.
func EndlessEmbedder() []byte {
	scalar := func(name string, elem int) Value { return Value{name, elem, nil} }
	body := Graph{
		Inputs:  []Value{scalar("round", Int64), scalar("on", Bool), scalar("v", Float)},
		Outputs: []Value{scalar("still_on", Bool), scalar("w", Float)},
		Nodes: []Node{
			{Op: "Identity", In: []string{"on"}, Out: []string{"still_on"}},
			{Op: "Sin", In: []string{"v"}, Out: []string{"w"}},
		},
	}
	return Graph{
		Inputs:  []Value{{"input", Float, []int64{1, 3, 112, 112}}},
		Outputs: []Value{{"output", Float, []int64{1, 3}}},
		Consts:  []Const{{"nought", nil, []float32{0}}},
		Nodes: []Node{
			{Op: "ReduceMax", In: []string{"input"}, Out: []string{"most"}, Int: map[string]int64{"keepdims": 0}},
			{Op: "Greater", In: []string{"most", "nought"}, Out: []string{"above"}},
			{Op: "Loop", In: []string{"", "above", "nought"}, Out: []string{"last"}, Body: &body},
			mean("input", "means"),
			{Op: "Add", In: []string{"means", "last"}, Out: []string{"output"}},
		},
	}.Bytes()
}

func mean(in, out string) Node {
	return Node{Op: "ReduceMean", In: []string{in}, Out: []string{out},
		Ints: map[string][]int64{"axes": {2, 3}}, Int: map[string]int64{"keepdims": 0}}
}

// YuNet returns a detector of side x side pixels with YuNet's twelve outputs,
// which are the given numbers whatever the image: outputs[name] for names such
// as "cls_8"; a missing one is all zeros.
func YuNet(side int, outputs map[string][]float32) []byte {
	g := Graph{Inputs: []Value{{"input", Float, []int64{1, 3, int64(side), int64(side)}}}}
	for _, head := range []struct {
		name  string
		width int
	}{{"cls", 1}, {"obj", 1}, {"bbox", 4}, {"kps", 10}} {
		for _, stride := range []int{8, 16, 32} {
			name := fmt.Sprintf("%s_%d", head.name, stride)
			cells := (side / stride) * (side / stride)
			dims := []int64{1, int64(cells), int64(head.width)}
			data := outputs[name]
			if data == nil {
				data = make([]float32, cells*head.width)
			}
			g.Consts = append(g.Consts, Const{"c_" + name, dims, data})
			g.Nodes = append(g.Nodes, Node{Op: "Identity", In: []string{"c_" + name}, Out: []string{name}})
			g.Outputs = append(g.Outputs, Value{name, Float, dims})
		}
	}
	return g.Bytes()
}
