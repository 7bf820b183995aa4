package code

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// dims are powers of two, the smallest and largest, and such as need two blocks.
var dims = []int{64, 65, 100, 127, 128, 192, 256, 320, 511, 512, 768, 1000, MaxDim}

// apply writes the rotated src to dst, which may be src.
func apply(rot *Rotation, dst, src []float32) {
	if err := rot.turn(append([]float32(nil), src...), dst); err != nil {
		panic(err)
	}
}

// TestRotationIsOrthogonal: lengths and angles stay, and the image of the
// standard basis is orthonormal.
func TestRotationIsOrthogonal(t *testing.T) {
	for _, dim := range dims {
		r := rand.New(rand.NewPCG(21, uint64(dim)))
		rot := rotation(t, 1, dim)
		for range 5 {
			a := gaussian(r, dim)
			b := near(r, a, 0.6)
			ra, rb := make([]float32, dim), make([]float32, dim)
			apply(rot, ra, a)
			apply(rot, rb, b)
			if d := math.Abs(cosine(a, b) - cosine(ra, rb)); d > 1e-6 {
				t.Errorf("dim %d: the cosine moved by %g", dim, d)
			}
			if n, m := length(a), length(ra); math.Abs(n/m-1) > 1e-6 {
				t.Errorf("dim %d: length %g became %g", dim, n, m)
			}
		}
	}
	for _, dim := range []int{64, 100, 192} {
		rot := rotation(t, 2, dim)
		image := make([][]float32, dim)
		for i := range image {
			image[i] = make([]float32, dim)
			image[i][i] = 1
			apply(rot, image[i], image[i])
		}
		for i := range image {
			for j := range i {
				if c := cosine(image[i], image[j]); math.Abs(c) > 1e-6 {
					t.Fatalf("dim %d: axes %d and %d come out at cosine %g", dim, i, j, c)
				}
			}
			if l := length(image[i]); math.Abs(l-1) > 1e-6 {
				t.Fatalf("dim %d: axis %d comes out at length %g", dim, i, l)
			}
		}
	}
}

func length(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

// structured gives embeddings that a weak transform would leave recognisable.
func structured(r *rand.Rand, dim int) map[string][]float32 {
	out := map[string][]float32{
		"one-hot": make([]float32, dim), "constant": make([]float32, dim), "alternating": make([]float32, dim),
		"sparse": make([]float32, dim), "non-negative": make([]float32, dim), "gaussian": gaussian(r, dim),
		"first half": make([]float32, dim),
	}
	out["one-hot"][r.IntN(dim)] = 1
	for i := range dim {
		out["constant"][i] = 1
		out["alternating"][i] = float32(1 - 2*(i%2))
		out["non-negative"][i] = float32(max(0, r.NormFloat64()))
		if i < dim/2 {
			out["first half"][i] = 1
		}
	}
	for range 4 {
		out["sparse"][r.IntN(dim)] = float32(r.NormFloat64())
	}
	return out
}

// TestRotationHidesStructure: one embedding under many seeds gives scores
// around 0 with the scatter of strangers, 1/sqrt(dim), whatever it looks like,
// and single values are nearly Gaussian, which is what the code's scale expects.
func TestRotationHidesStructure(t *testing.T) {
	const seeds = 260
	for _, dim := range []int{64, 128, 192, 512} {
		for name, v := range structured(rand.New(rand.NewPCG(22, uint64(dim))), dim) {
			codes := make([]Code, seeds)
			for s := range codes {
				rot, err := NewRotation(RotationSeed{byte(s), byte(s >> 8), 7}, dim)
				if err != nil {
					t.Fatal(err)
				}
				codes[s] = encode(t, rot, v)
			}
			var sum, squares, largest float64
			n := 0
			for i := range codes {
				for j := range i {
					s := float64(similarity(t, codes[i], codes[j]))
					sum, squares, largest, n = sum+s, squares+s*s, max(largest, math.Abs(s)), n+1
				}
			}
			mean, sd, want := sum/float64(n), math.Sqrt(squares/float64(n)), 1/math.Sqrt(float64(dim))
			// 33,670 pairs: the mean's standard error is want/183, the sd's 0.4%.
			if math.Abs(mean) > 6*want/math.Sqrt(float64(n)) || math.Abs(sd/want-1) > 0.05 || largest > 6.5*want {
				t.Errorf("dim %d %s: mean %.5f sd %.5f largest %.3f; strangers have 0, %.5f", dim, name, mean, sd, largest, want)
			}
		}
	}
}

// TestRotationDependsOnSeed: the seed's every byte counts, and so does dim.
func TestRotationDependsOnSeed(t *testing.T) {
	v := gaussian(rand.New(rand.NewPCG(23, 1)), 512)
	base := encode(t, rotation(t, 0, 512), v)
	for i := range 32 {
		seed := RotationSeed{}
		seed[i] = 1
		rot, err := NewRotation(seed, 512)
		if err != nil {
			t.Fatal(err)
		}
		if s := similarity(t, base, encode(t, rot, v)); math.Abs(float64(s)) > 0.25 {
			t.Errorf("changing byte %d of the seed leaves similarity %v", i, s)
		}
	}
	if !sameCode(base, encode(t, rotation(t, 0, 512), v)) {
		t.Error("the same seed gives another code")
	}
}

func TestNewRotationRefuses(t *testing.T) {
	for _, dim := range []int{-1, 0, 1, MinDim - 1, MaxDim + 1, 1 << 30} {
		if rot, err := NewRotation(RotationSeed{}, dim); !errors.Is(err, ErrDimension) || rot != nil {
			t.Errorf("dim %d: %v", dim, err)
		}
	}
	if d := (*Rotation)(nil).Dim(); d != 0 {
		t.Errorf("a nil rotation has dimension %d", d)
	}
}

// A wiped rotation holds nothing, and says so.
func TestWipe(t *testing.T) {
	rot := rotation(t, 1, 128)
	moves := rot.moves
	rot.Wipe()
	rot.Wipe()
	(*Rotation)(nil).Wipe()
	for i, m := range moves {
		if m != 0 {
			t.Fatalf("move %d is still there", i)
		}
	}
	embedding := make([]float32, 128)
	embedding[3] = 1
	if _, err := Encode(rot, embedding); !errors.Is(err, ErrWiped) {
		t.Errorf("encoding under a wiped rotation: %v, want ErrWiped", err)
	}
}

// TestRotationSize: 10,000 scopes keep theirs in memory.
func TestRotationSize(t *testing.T) {
	rot := rotation(t, 1, 512)
	size := int(unsafe.Sizeof(*rot)) + 2*cap(rot.moves)
	if size > 1536 {
		t.Errorf("a 512-d rotation takes %d bytes, at most 1536 are planned", size)
	}
}

// TestGolden pins codes for ever: stored templates must fit tomorrow's probes,
// on any CPU. If it fails, the format version must change, not the test. The
// embedding is made of integers, so that it is the same everywhere too.
func TestGolden(t *testing.T) {
	seed := RotationSeed{}
	for i := range seed {
		seed[i] = byte(i)
	}
	for _, c := range []struct {
		dim         int
		code, decoy string
	}{
		{128, "8e7b013b366a3c6f35563a1b", "0d45c6ff0be07671a43cbfb5"},
		{192, "fd5546f446868c8fe1b30533", "0930621e85727382ea0ecad5"},
		{512, "85f719d61b499792bfc36e25", "1ded3d74e44ff518205b444b"},
	} {
		rot, err := NewRotation(seed, c.dim)
		if err != nil {
			t.Fatal(err)
		}
		v := make([]float32, c.dim)
		state := uint32(c.dim)
		for i := range v {
			state = state*1664525 + 1013904223
			v[i] = float32(int32(state) >> 16)
		}
		if got := digest(t, encode(t, rot, v)); got != c.code {
			t.Errorf("dim %d: code %s, want %s", c.dim, got, c.code)
		}
		if got := digest(t, Decoy(seed, "visitor-7", c.dim)); got != c.decoy {
			t.Errorf("dim %d: decoy %s, want %s", c.dim, got, c.decoy)
		}
	}
}

func digest(t *testing.T, c Code) string {
	t.Helper()
	b, err := c.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

// TestDecoy: valid, stable, distinct for subjects, seeds and dimensions, and
// with the scores and norms of strangers' codes.
func TestDecoy(t *testing.T) {
	const dim, n = 512, 2000
	seed := RotationSeed{1}
	a := Decoy(seed, "a", dim)
	if !sameCode(a, Decoy(seed, "a", dim)) {
		t.Error("the same subject gets another decoy")
	}
	for name, b := range map[string]Code{"subject": Decoy(seed, "b", dim), "seed": Decoy(RotationSeed{2}, "a", dim)} {
		if s := similarity(t, a, b); math.Abs(float64(s)) > 0.25 {
			t.Errorf("another %s gives a decoy at similarity %v", name, s)
		}
	}
	r := rand.New(rand.NewPCG(24, 1))
	rot := rotation(t, 9, dim)
	probe := encode(t, rot, gaussian(r, dim))
	var squares, decoyNorm, realNorm float64
	for i := range n {
		d := Decoy(seed, string(rune('a'+i%26))+string(rune('a'+i/26)), dim)
		if err := d.Validate(dim); err != nil {
			t.Fatal(err)
		}
		s := float64(similarity(t, probe, d))
		squares += s * s
		decoyNorm += float64(d.Norm2) / n
		realNorm += float64(encode(t, rot, gaussian(r, dim)).Norm2) / n
	}
	if sd := math.Sqrt(squares / n); math.Abs(sd*math.Sqrt(dim)-1) > 0.1 {
		t.Errorf("decoys score with scatter %.4f, strangers with %.4f", sd, 1/math.Sqrt(dim))
	}
	if math.Abs(decoyNorm/realNorm-1) > 0.1 {
		t.Errorf("decoys' norms average %.0f, real codes' %.0f", decoyNorm, realNorm)
	}
	for _, dim := range []int{-3, 0, 1, MaxDim + 1} {
		if c := Decoy(seed, "a", dim); c.Validate(len(c.Q)) != nil {
			t.Errorf("dim %d: invalid decoy", dim)
		}
	}
}
