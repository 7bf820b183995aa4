package code

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/menshen-io/menshen/index/kernel"
)

func rotation(t testing.TB, seed byte, dim int) *Rotation {
	t.Helper()
	rot, err := NewRotation(RotationSeed{seed}, dim)
	if err != nil {
		t.Fatal(err)
	}
	return rot
}

func encode(t testing.TB, rot *Rotation, embedding []float32) Code {
	t.Helper()
	c, err := Encode(rot, embedding)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func similarity(t testing.TB, a, b Code) Score {
	t.Helper()
	s, err := Similarity(a, b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func gaussian(r *rand.Rand, dim int) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// near draws an embedding at about the given cosine from v.
func near(r *rand.Rand, v []float32, cosine float64) []float32 {
	out := gaussian(r, len(v))
	side := math.Sqrt(1 - cosine*cosine)
	for i := range out {
		out[i] = float32(cosine*float64(v[i]) + side*float64(out[i]))
	}
	return out
}

// cosine is the number that scores stand for, in float64.
func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}

// TestScoreIsTheCosine bounds the error of the whole way, from embedding to
// score, at 0.004 for isotropic embeddings.
func TestScoreIsTheCosine(t *testing.T) {
	for _, dim := range []int{128, 192, 512} {
		r := rand.New(rand.NewPCG(11, uint64(dim)))
		rot := rotation(t, 1, dim)
		var worst, squares float64
		n := 0
		for range 300 {
			base := gaussian(r, dim)
			a := encode(t, rot, base)
			for _, at := range []float64{1, 0.97, 0.8, 0.5, 0.3, 0.1, 0, -0.4, -1} {
				other := near(r, base, at)
				e := math.Abs(float64(similarity(t, a, encode(t, rot, other))) - cosine(base, other))
				worst, squares, n = max(worst, e), squares+e*e, n+1
			}
		}
		t.Logf("dim %d: worst error %.5f, rms %.5f over %d pairs", dim, worst, math.Sqrt(squares/float64(n)), n)
		if worst > 0.004 {
			t.Errorf("dim %d: worst error %.5f, at most 0.004 is promised", dim, worst)
		}
	}
}

// TestEncodeIgnoresLength: the code is that of the direction.
func TestEncodeIgnoresLength(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 1))
	rot := rotation(t, 2, 512)
	v := gaussian(r, 512)
	want := encode(t, rot, v)
	for _, factor := range []float32{0x1p-20, 0x1p-3, 2, 0x1p100} { // powers of two: no rounding
		scaled := make([]float32, len(v))
		for i := range v {
			scaled[i] = v[i] * factor
		}
		got := encode(t, rot, scaled)
		if !sameCode(got, want) {
			t.Errorf("times %g: another code, similarity %v", factor, similarity(t, got, want))
		}
	}
}

func sameCode(a, b Code) bool {
	if len(a.Q) != len(b.Q) || a.Norm2 != b.Norm2 {
		return false
	}
	for i := range a.Q {
		if a.Q[i] != b.Q[i] {
			return false
		}
	}
	return true
}

func TestEncodeRefuses(t *testing.T) {
	const dim = 128
	rot := rotation(t, 3, dim)
	fill := func(n int, value float32) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = value
		}
		return v
	}
	one := func(value float32) []float32 {
		v := fill(dim, 0.1)
		v[dim-1] = value
		return v
	}
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		name      string
		embedding []float32
		want      error
	}{
		{"nil", nil, ErrDimension},
		{"empty", []float32{}, ErrDimension},
		{"one short", fill(dim-1, 1), ErrDimension},
		{"one long", fill(dim+1, 1), ErrDimension},
		{"NaN", one(float32(math.NaN())), ErrNotFinite},
		{"Inf", one(inf), ErrNotFinite},
		{"-Inf", one(-inf), ErrNotFinite},
		{"zero", fill(dim, 0), ErrZero},
		{"negative zero", fill(dim, float32(math.Copysign(0, -1))), ErrZero},
		{"denormal", fill(dim, math.SmallestNonzeroFloat32), ErrZero},
		{"one denormal value", append(fill(dim-1, 0), 1e-40), ErrZero},
		{"tiny", fill(dim, 1e-8), ErrZero},
	} {
		got, err := Encode(rot, c.embedding)
		if !errors.Is(err, c.want) || got.Q != nil {
			t.Errorf("%s: error %v, want %v and no code", c.name, err, c.want)
		}
	}
	if _, err := Encode(nil, fill(dim, 1)); !errors.Is(err, ErrDimension) {
		t.Errorf("nil rotation: %v", err)
	}
	if _, err := EncodeInto(make([]int8, dim-1), make([]float32, dim), rot, fill(dim, 1)); !errors.Is(err, ErrDimension) {
		t.Errorf("short dst: %v", err)
	}
	if _, err := EncodeInto(make([]int8, dim), nil, rot, fill(dim, 1)); !errors.Is(err, ErrDimension) {
		t.Errorf("no scratch: %v", err)
	}
	// What is large, tiny in one place or one-hot is no fault.
	for name, v := range map[string][]float32{
		"huge": fill(dim, math.MaxFloat32), "one huge": one(math.MaxFloat32), "one-hot": append(make([]float32, dim-1), -1),
		"with a denormal": one(1e-40),
	} {
		if c, err := Encode(rot, v); err != nil || c.Validate(dim) != nil {
			t.Errorf("%s: %v, %v", name, err, c.Validate(dim))
		}
	}
}

func TestEncodeLeavesTheEmbedding(t *testing.T) {
	v := gaussian(rand.New(rand.NewPCG(13, 1)), 192)
	before := append([]float32(nil), v...)
	encode(t, rotation(t, 4, 192), v)
	for i := range v {
		if v[i] != before[i] {
			t.Fatalf("value %d was changed", i)
		}
	}
}

func TestEncodeIntoAllocatesNothing(t *testing.T) {
	rot, v := rotation(t, 5, 512), gaussian(rand.New(rand.NewPCG(14, 1)), 512)
	dst, scratch, src := make([]int8, 512), make([]float32, 1024), new(rand.ChaCha8)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := EncodeInto(dst, scratch, rot, v); err != nil {
			t.Fatal(err)
		}
		DecoyInto(dst, scratch, src, &RotationSeed{1}, "visitor-7")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// quantise leaves divisions out; what it writes is what the divisions give, at
// ties and one bit beside them too.
func TestQuantiseRoundsLikeADivision(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 1))
	for _, most := range []float32{127, 254, 1, 0.37, 3e-7, 1e20, math.SmallestNonzeroFloat32 * 1000, float32(r.NormFloat64())} {
		v := []float32{most, -most, 0}
		for k := -127; k < 127; k++ {
			tie := float32((float64(k) + 0.5) * float64(most) / peak)
			v = append(v, tie, math.Nextafter32(tie, -most), math.Nextafter32(tie, most))
		}
		for range 2000 {
			v = append(v, most*float32(2*r.Float64()-1))
		}
		got := make([]int8, len(v))
		norm2 := quantise(got, v)
		var largest float64
		for _, x := range v {
			largest = max(largest, math.Abs(float64(x)))
		}
		want := int32(0)
		for i, x := range v {
			q := math.RoundToEven(float64(x) * peak / largest)
			if int8(q) != got[i] {
				t.Errorf("%g of %g becomes %d, want %g", x, largest, got[i], q)
			}
			want += int32(q) * int32(q)
		}
		if norm2 != want {
			t.Errorf("largest %g: the sum of squares is %d, want %d", largest, norm2, want)
		}
	}
}

// keyed is the standard library's HMAC, for any message.
func TestKeyedIsHMAC(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 1))
	for n := range 300 {
		var seed RotationSeed
		message := make([]byte, n)
		for i := range seed {
			seed[i] = byte(r.Uint32())
		}
		for i := range message {
			message[i] = byte(r.Uint32())
		}
		mac := hmac.New(sha256.New, seed[:])
		mac.Write(message)
		if got := keyed(&seed, message); !bytes.Equal(got[:], mac.Sum(nil)) {
			t.Fatalf("%d bytes: %x, want %x", n, got, mac.Sum(nil))
		}
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		dot, n1, n2 int32
		want        Score
	}{
		{100, 100, 100, 1}, {-100, 100, 100, -1}, {0, 7, 9, 0}, {6, 4, 9, 1}, {3, 4, 9, 0.5},
		{5, 0, 9, 0}, {5, 9, 0, 0}, {5, -4, -9, 0},
	} {
		if got := Compare(c.dot, c.n1, c.n2); got != c.want {
			t.Errorf("Compare(%d, %d, %d) = %v, want %v", c.dot, c.n1, c.n2, got, c.want)
		}
	}
	// Equal codes score exactly 1 and nothing scores more, up to the largest norms.
	r := rand.New(rand.NewPCG(15, 1))
	for range 200_000 {
		n := 127*127 + r.Int32N(127*127*(MaxDim-1))
		if s := Compare(n, n, n); s != 1 {
			t.Fatalf("Compare(%d, %d, %d) = %v, want exactly 1", n, n, n, s)
		}
		m := 127*127 + r.Int32N(127*127*(MaxDim-1))
		top := int32(math.Sqrt(float64(n) * float64(m))) // the largest dot that Cauchy and Schwarz allow
		if s := Compare(top, n, m); s > 1 {
			t.Fatalf("Compare(%d, %d, %d) = %v", top, n, m, s)
		}
	}
}

func TestSimilarityOfUnequalLengths(t *testing.T) {
	a := encode(t, rotation(t, 1, 64), gaussian(rand.New(rand.NewPCG(1, 1)), 64))
	b := encode(t, rotation(t, 1, 128), gaussian(rand.New(rand.NewPCG(1, 1)), 128))
	if _, err := Similarity(a, b); !errors.Is(err, ErrDimension) {
		t.Errorf("error %v, want ErrDimension", err)
	}
}

func TestThresholdAdmits(t *testing.T) {
	nan := Threshold(math.NaN())
	for _, c := range []struct {
		t    Threshold
		s    Score
		want bool
	}{{0.5, 0.5, true}, {0.5, 0.49999, false}, {0.5, 1, true}, {nan, 1, false}, {-1, -1, true}} {
		if got := c.t.Admits(c.s); got != c.want {
			t.Errorf("threshold %v admits %v: %v, want %v", c.t, c.s, got, c.want)
		}
	}
}

func TestBinary(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 1))
	for _, dim := range []int{64, 128, 192, 512} {
		c := encode(t, rotation(t, 6, dim), gaussian(r, dim))
		b, err := c.AppendBinary([]byte("prefix"))
		if err != nil || !bytes.HasPrefix(b, []byte("prefix")) {
			t.Fatalf("AppendBinary: %v", err)
		}
		stored := b[len("prefix"):]
		got, err := ParseCode(stored, dim)
		if err != nil || !sameCode(got, c) {
			t.Fatalf("dim %d: parsed another code; %v", dim, err)
		}
		stored[10] ^= 0xff
		if !sameCode(got, c) {
			t.Error("the parsed code shares the bytes' memory")
		}
	}
}

func TestParseCodeRefuses(t *testing.T) {
	const dim = 64
	good, err := encode(t, rotation(t, 7, dim), gaussian(rand.New(rand.NewPCG(17, 1)), dim)).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	with := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		dim  int
		want error
	}{
		{"nothing", nil, dim, ErrCode},
		{"header cut", good[:4], dim, ErrCode},
		{"values cut", good[:len(good)-1], dim, ErrDimension},
		{"a value more", append(bytes.Clone(good), 0), dim, ErrDimension},
		{"another dimension", good, 128, ErrDimension},
		{"dimension 0", good, 0, ErrDimension},
		{"dimension below zero", good, -1, ErrDimension},
		{"format 0", with(func(b []byte) { b[0] = 0 }), dim, ErrCode},
		{"format 2", with(func(b []byte) { b[0] = 2 }), dim, ErrCode},
		{"norm", with(func(b []byte) { b[1] ^= 1 }), dim, ErrCode},
		{"value", with(func(b []byte) { b[20] ^= 1 }), dim, ErrCode},
		{"-128", with(func(b []byte) { b[20] = 0x80 }), dim, ErrCode},
		{"all zero", with(func(b []byte) { clear(b[1:]) }), dim, ErrCode},
	} {
		if got, err := ParseCode(c.b, c.dim); !errors.Is(err, c.want) || got.Q != nil {
			t.Errorf("%s: error %v, want %v and no code", c.name, err, c.want)
		}
	}
	if b, err := (Code{}).AppendBinary(nil); !errors.Is(err, ErrDimension) || len(b) != 0 {
		t.Errorf("the zero code was stored as %d bytes, error %v", len(b), err)
	}
}

// FuzzParseCode: what parses is valid and is written back byte for byte.
func FuzzParseCode(f *testing.F) {
	good, err := encode(f, rotation(f, 8, 64), gaussian(rand.New(rand.NewPCG(18, 1)), 64)).AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, 64)
	f.Add([]byte{FormatV1, 0, 0, 0, 0}, 64)
	f.Add([]byte(nil), -5)
	f.Fuzz(func(t *testing.T, b []byte, dim int) {
		c, err := ParseCode(b, dim)
		if err != nil {
			if !errors.Is(err, ErrCode) && !errors.Is(err, ErrDimension) {
				t.Fatalf("unnamed error %v", err)
			}
			return
		}
		if err := c.Validate(dim); err != nil {
			t.Fatal(err)
		}
		if again, err := c.AppendBinary(nil); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("written back differently: %v", err)
		}
	})
}

// TestNothingSecretIsPrinted: neither codes nor seeds nor rotations show values
// under any verb, in slog or in JSON.
func TestNothingSecretIsPrinted(t *testing.T) {
	const dim = 64
	seed := RotationSeed{0xab, 0xcd, 0xef}
	rot, err := NewRotation(seed, dim)
	if err != nil {
		t.Fatal(err)
	}
	c := encode(t, rot, gaussian(rand.New(rand.NewPCG(19, 1)), dim))
	for _, v := range []any{c, &c, seed, &seed, rot, *rot, struct{ C Code }{c}, []RotationSeed{seed}} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
			fmt.Fprintf(&out, verb, v)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		text := out.String()
		for _, secret := range []string{
			fmt.Sprint([]int8(c.Q))[1:30], "abcdef", "171 205", "0xab", fmt.Sprint(rot.moves)[1:20],
			fmt.Sprint(c.Norm2),
		} {
			if strings.Contains(text, secret) {
				t.Errorf("%T prints %q", v, secret)
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, dim := range []int{128, 512} {
		b.Run(fmt.Sprintf("dim=%d", dim), func(b *testing.B) {
			rot, v := rotation(b, 1, dim), gaussian(rand.New(rand.NewPCG(1, 1)), dim)
			dst, scratch := make([]int8, dim), make([]float32, 2*dim)
			b.SetBytes(int64(4 * dim))
			for b.Loop() {
				if _, err := EncodeInto(dst, scratch, rot, v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecoy(b *testing.B) {
	for _, dim := range []int{128, 512} {
		b.Run(fmt.Sprintf("dim=%d", dim), func(b *testing.B) {
			dst, scratch, src := make([]int8, dim), make([]float32, dim), new(rand.ChaCha8)
			b.SetBytes(int64(4 * dim))
			for b.Loop() {
				DecoyInto(dst, scratch, src, &RotationSeed{1}, "visitor-7")
			}
		})
	}
}

// TestValidateMagnitude puts each value at each place of codes of all lengths.
func TestValidateMagnitude(t *testing.T) {
	for _, dim := range []int{MinDim, MinDim + 1, MinDim + 7, 128} {
		for at := range dim {
			for value := -128; value <= 127; value++ {
				c := Code{Q: make([]int8, dim)}
				for i := range c.Q {
					c.Q[i] = int8(i%253 - 126)
				}
				c.Q[at] = int8(value)
				c.Norm2 = kernel.Dot(c.Q, c.Q)
				if err, want := c.Validate(dim), value == 127 || value == -127; (err == nil) != want || err != nil && !errors.Is(err, ErrCode) {
					t.Fatalf("%d values with %d at %d: %v", dim, value, at, err)
				}
				if value == 127 {
					c.Q[(at+1)%dim] = -128
					c.Norm2 = kernel.Dot(c.Q, c.Q)
					if err := c.Validate(dim); !errors.Is(err, ErrCode) {
						t.Fatalf("%d values with -128 and 127: %v", dim, err)
					}
				}
			}
		}
	}
}
