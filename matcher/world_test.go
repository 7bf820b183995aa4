package matcher

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/admission"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/pipeline"
)

const testDim = 128

// fakeModels sees what the pictures of this file say: a crop's first three
// bytes are the person (two) and the shot, and an image of w pixels shows w/100
// faces side by side.
type fakeModels struct{}

func (fakeModels) EmbedderManifest() models.Manifest {
	return models.Manifest{Name: "fake", SHA256: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
		Output: models.Output{Dimension: testDim}, Threshold: 0.6}
}

func fakeModelID() string {
	manifest := fakeModels{}.EmbedderManifest()
	return manifest.ID()
}

func (fakeModels) Measure(data []byte) (decode.Cost, error) {
	return decode.Measure(data, decode.DefaultLimits())
}

func (fakeModels) Decode(_ context.Context, data []byte) (*decode.Image, error) {
	return decode.Decode(data, decode.DefaultLimits())
}

func (f fakeModels) Observe(ctx context.Context, data []byte) (*pipeline.Scene, error) {
	img, err := f.Decode(ctx, data)
	if err != nil {
		return nil, err
	}
	scene := &pipeline.Scene{Image: img}
	for i := range img.Width / 200 {
		x := float32(200 * i)
		face := detect.Face{Score: 0.95, Box: detect.Box{X: x + 30, Y: 20, W: 140 - float32(i), H: 160}}
		for k, p := range align.Reference() {
			face.Landmarks[k] = align.Point{X: x + 44 + p.X, Y: 44 + p.Y}
		}
		scene.Faces = append(scene.Faces, face)
	}
	return scene, nil
}

func (fakeModels) Crop(_ context.Context, scene *pipeline.Scene, i int) (*align.Crop, error) {
	return align.CropFromRGB(noisePixels(uint16(scene.Image.Pix[0])+uint16(i), scene.Image.Pix[1]))
}

func (fakeModels) Embed(ctx context.Context, crop *align.Crop) ([]float32, error) {
	return embeddingOf(binary.BigEndian.Uint16(crop.Pix), crop.Pix[2]), ctx.Err()
}

// embeddingOf is a direction of the person's own plus noise of the shot: mated
// scores are about 0.85, non-mated ones those of random vectors.
func embeddingOf(person uint16, shot byte) []float32 {
	own := rand.New(rand.NewPCG(uint64(person), 1))
	noise := rand.New(rand.NewPCG(uint64(person), 1000+uint64(shot)))
	v := make([]float32, testDim)
	for i := range v {
		v[i] = float32(own.NormFloat64() + 0.4*noise.NormFloat64())
	}
	return v
}

// noisePixels is a crop that is bright, sharp and of rich contrast.
func noisePixels(person uint16, shot byte) []byte {
	src := rand.New(rand.NewPCG(7, 7))
	pix := make([]byte, align.Size*align.Size*3)
	for i := range pix {
		pix[i] = byte(60 + src.IntN(140))
	}
	binary.BigEndian.PutUint16(pix, person)
	pix[2] = shot
	return pix
}

func cropOf(person uint16, shot byte) Probe { return Probe{CropRGB: noisePixels(person, shot)} }

func vectorOf(person uint16, shot byte) Probe {
	var b []byte
	for _, x := range embeddingOf(person, shot) {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return Probe{Embedding: EmbeddingProbe{ModelID: fakeModelID(), Vector: b}}
}

// imageOf is a PNG that shows the people first, first+1, ...
func imageOf(t testing.TB, first uint8, shot byte, faces int) Probe {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 200*max(faces, 1)-min(1, max(0, 1-faces)), 200))
	src := rand.New(rand.NewPCG(3, 3))
	for i := range img.Pix {
		img.Pix[i] = byte(60 + src.IntN(140))
	}
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = 255
	}
	img.SetRGBA(0, 0, color.RGBA{R: first, G: shot, A: 255})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return Probe{Image: b.Bytes()}
}

// world is a matcher on a data directory of its own, that can be restarted.
type world struct {
	*Matcher
	t       testing.TB
	dir     string
	root    *keyring.Root
	keyring *keyring.Keyring
	store   *store.Store

	clock struct {
		sync.Mutex
		now time.Time
	}
	disk     atomic.Uint64 // free bytes, as the store is told
	ring     func() error  // the error of the keyring's writes, where not nil
	realDisk uint64        // where not 0: the disk is asked, and so much is kept free
}

// full leaves so much free space, and waits for longer than the store trusts what it
// was told before.
func (w *world) full(free uint64) {
	w.disk.Store(free)
	time.Sleep(300 * time.Millisecond)
}

const roomy = 1 << 40

var hallA = scope.Ref{Tenant: "fair", Scope: "hall-a"}

func newWorld(t testing.TB) *world { return worldIn(t, t.TempDir(), keyring.NewRoot()) }

func worldIn(t testing.TB, dir string, root *keyring.Root) *world {
	w := &world{t: t, dir: dir, root: root}
	w.clock.now = time.Date(2027, 3, 1, 9, 0, 0, 0, time.UTC)
	w.disk.Store(roomy)
	w.open()
	t.Cleanup(func() {
		must(t, w.Matcher.Close()) // so that no purge changes the records under the check
		w.check()
		w.closeStorage()
	})
	return w
}

// openStorage opens keyring and store without a matcher.
func (w *world) openStorage() {
	w.t.Helper()
	var err error
	w.keyring, err = keyring.Open(filepath.Join(w.dir, "keyring"), w.root, keyring.Options{Create: true, Fault: func() error {
		if w.ring == nil {
			return nil
		}
		return w.ring()
	}})
	must(w.t, err)
	opt := store.Options{Dir: filepath.Join(w.dir, "data"), Keyring: w.keyring, FreeBytes: func(string) (uint64, error) { return w.disk.Load(), nil }}
	if w.realDisk > 0 {
		opt.FreeBytes, opt.MinFreeBytes, opt.ReserveBytes, opt.MemTableBytes = nil, w.realDisk, int64(w.realDisk/4), 8<<20
	}
	w.store, err = store.Open(context.Background(), opt)
	must(w.t, err)
}

func (w *world) open() {
	w.t.Helper()
	w.openStorage()
	var err error
	w.Matcher, err = New(context.Background(), Options{
		Store: w.store, Keyring: w.keyring, Index: index.New(), Perception: fakeModels{},
		Logger: slog.New(slog.DiscardHandler), Clock: w.now, Receipts: filepath.Join(w.dir, "receipts"), Journal: filepath.Join(w.dir, "journal"),
		Admission: admission.New(admission.Options{Cores: 64}), // so that no call of a test is refused on a small machine
	})
	must(w.t, err)
}

func (w *world) close() {
	w.t.Helper()
	must(w.t, w.Matcher.Close())
	w.closeStorage()
}

func (w *world) closeStorage() {
	w.t.Helper()
	must(w.t, w.store.Close())
	must(w.t, w.keyring.Close())
}

func (w *world) restart() { w.close(); w.open() }

// check holds memory against itself and against the store, once the matcher is
// closed.
func (w *world) check() {
	w.t.Helper()
	people := map[scope.TenantID]int{}
	w.index.Each(func(g *index.Gallery) bool {
		must(w.t, g.Check())
		people[g.Ref().Tenant] += g.Subjects()
		return true
	})
	for _, sc := range w.entries() {
		if t := sc.ref.Tenant; w.Filing(t).Subjects != people[t] {
			w.t.Errorf("the filing meter counts %d subjects of %s, the galleries hold %d", w.Filing(t).Subjects, t, people[t])
		}
	}
	must(w.t, w.store.Check())
}

func (w *world) now() time.Time {
	w.clock.Lock()
	defer w.clock.Unlock()
	return w.clock.now
}

func (w *world) pass(d time.Duration) {
	w.clock.Lock()
	defer w.clock.Unlock()
	w.clock.now = w.clock.now.Add(d)
}

const allUses = scope.UseVerify | scope.UseIdentify | scope.UseEnroll | scope.UseErase | scope.UseRead | scope.UseManage | scope.UseSettings

func grant(ref scope.Ref) scope.Grant { return scope.Mint(ref, allUses, "test") }

func (w *world) settings() Settings {
	return Settings{Purpose: "entry to the fair", Site: "hall A", Alternative: "the staffed lane", LegalBasis: "separate consent",
		EndTime: w.now().Add(72 * time.Hour)}
}

func (w *world) create(ref scope.Ref) Scope {
	w.t.Helper()
	s, err := w.CreateScope(context.Background(), grant(ref), w.settings(), request())
	must(w.t, err)
	return s
}

func (w *world) consent() Consent {
	return Consent{Reference: "form-17", GiveTime: w.now().Add(-time.Minute), NoticeVersion: "2"}
}

// told is a consent to the scope's present notice.
func (w *world) told(ref scope.Ref) Consent {
	w.t.Helper()
	s, err := w.Scope(context.Background(), grant(ref))
	must(w.t, err)
	c := w.consent()
	c.NoticeVersion = s.CurrentNotice()
	return c
}

func (w *world) enroll(ref scope.Ref, id scope.SubjectID, probes ...Probe) Enrolled {
	w.t.Helper()
	e, err := w.Enroll(context.Background(), grant(ref), Enrollment{Subject: id, Consent: w.consent(), Probes: probes})
	must(w.t, err)
	return e
}

func (w *world) verify(ref scope.Ref, id scope.SubjectID, p Probe) Decision {
	w.t.Helper()
	d, err := w.Verify(context.Background(), grant(ref), VerifyQuery{Subject: id, Probe: p})
	must(w.t, err)
	return d
}

func (w *world) identify(ref scope.Ref, p Probe) Decision {
	w.t.Helper()
	r, err := w.Identify(context.Background(), grant(ref), IdentifyQuery{Probe: p})
	must(w.t, err)
	if len(r) != 1 {
		w.t.Fatalf("Identify gave %d results, want 1", len(r))
	}
	return r[0].Decision
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func subjectID(i int) scope.SubjectID { return scope.SubjectID(fmt.Sprintf("visitor-%d", i)) }
