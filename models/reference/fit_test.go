package reference

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

func TestBasisIsOrthonormal(t *testing.T) {
	b := newBasis()
	r := rand.New(rand.NewPCG(1, 2))
	x := make([]float64, features)
	norm := 0.0
	for i := range x {
		x[i] = r.Float64() - 0.5
		norm += x[i] * x[i]
	}
	y := b.transform(x)
	for _, v := range y {
		norm -= v * v
	}
	if math.Abs(norm) > 1e-9 {
		t.Errorf("the transform changes the squared norm by %v", norm)
	}
	for i, v := range b.inverse(y) {
		if math.Abs(v-x[i]) > 1e-12 {
			t.Fatalf("inverse(transform(x))[%d] = %v, want %v", i, v, x[i])
		}
	}
}

// population draws rows of people who differ in some components of the basis
// and vary in all.
func population(people, shots int) [][]float32 {
	r := rand.New(rand.NewPCG(3, 4))
	b := newBasis()
	var rows [][]float32
	for range people {
		who := make([]float64, features)
		for i := range who {
			if i%2 == 0 {
				who[i] = r.NormFloat64()
			}
		}
		for range shots {
			x := make([]float64, features)
			for i := range x {
				x[i] = who[i] + 0.3*r.NormFloat64()*(1+float64(i%3))
			}
			row := make([]float32, features)
			for i, v := range b.inverse(x) {
				row[i] = float32(v + 1)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// The fitted projection makes the shots of one person vary alike in every
// output, as far as the between-person share of the metric and int8 allow, and
// keeps what people differ in.
func TestFitWhitens(t *testing.T) {
	const people, shots = 600, 2
	rows := population(people, shots)
	sum := [32]byte{1, 2, 3}
	data, err := Fit(rows, shots, sum)
	if err != nil {
		t.Fatal(err)
	}
	p, err := decodeProjection(data)
	if err != nil {
		t.Fatal(err)
	}
	if p.fittedOn != sum {
		t.Error("the sum of the crops is not in the file")
	}
	out := make([][]float64, len(rows))
	for i, r := range rows {
		y := make([]float64, Dimension)
		for f, v := range r {
			x := float64(v - p.mean[f])
			for j, w := range p.weights[f*Dimension : (f+1)*Dimension] {
				y[j] += x * float64(w)
			}
		}
		for j := range y {
			y[j] *= float64(p.scale[j])
		}
		out[i] = y
	}
	var total, within, mean float64
	for i := 0; i < len(out); i += shots {
		for j := range Dimension {
			a, b := out[i][j], out[i+1][j]
			mean += (a + b) / float64(len(out))
			within += (a - b) * (a - b) / 2
			total += (a*a + b*b) / 2
		}
	}
	within /= people * Dimension
	total /= people * Dimension
	if math.Abs(mean)/Dimension > 1e-3 {
		t.Errorf("mean output %v, want 0", mean/Dimension)
	}
	// 1 = (1-fitBetween)*within + fitBetween*total, less the ridge
	if metric := (1-fitBetween)*within + fitBetween*total; metric < 0.9 || metric > 1.1 {
		t.Errorf("metric's mean variance %.3f, want about 1", metric)
	}
	if total < 3*within {
		t.Errorf("total variance %.3f against %.3f within a person: the components that tell people apart were dropped", total, within)
	}
}

func TestFitRefusesBadInput(t *testing.T) {
	rows := population(4, 2)
	many := make([][]float32, 2*Dimension)
	for i := range many {
		many[i] = rows[0]
	}
	short := append([][]float32{rows[0][:10]}, many[1:]...)
	for name, c := range map[string]struct {
		rows  [][]float32
		shots int
	}{
		"too few rows":      {rows, 2},
		"one shot":          {many, 1},
		"unequal groups":    {many, 3},
		"short row":         {short, 2},
		"all rows the same": {many, 2},
	} {
		if _, err := Fit(c.rows, c.shots, [32]byte{}); !errors.Is(err, ErrFit) {
			t.Errorf("%s: error %v, want ErrFit", name, err)
		}
	}
}
