package matcher

import (
	"bytes"
	"context"
	"image"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/matcher/admission"
)

// Admission is the limiter that the matcher's calls pass.
func (m *Matcher) Admission() *admission.Limiter { return m.admission }

// admit asks for the core time that the probes need: once, before anything of
// them is decoded.
func (m *Matcher) admit(ctx context.Context, sc *scopeEntry, op admission.Op, patient bool, probes ...Probe) (admission.Ticket, error) {
	ask := admission.Ask{Tenant: string(sc.ref.Tenant), Work: admission.Work{Op: op, Count: len(probes)}, Patient: patient}
	for _, p := range probes {
		kind, size := p.weigh()
		ask.Work.Probe = max(ask.Work.Probe, kind)
		ask.Bytes += size
		if kind == admission.Image {
			ask.Work.Pixels = max(ask.Work.Pixels, pixels(p.Image))
		}
	}
	if op == admission.Identify && sc.gallery != nil {
		ask.Work.Rows = sc.gallery.Templates()
		ask.Work.Shared = ask.Work.Rows > index.SmallGallery
	}
	return m.admission.Admit(ctx, ask)
}

// weigh tells what kind of work a probe is, and how many bytes it holds.
func (p Probe) weigh() (admission.Probe, int) {
	switch {
	case p.Image != nil:
		return admission.Image, len(p.Image)
	case p.CropEncoded != nil:
		return admission.EncodedCrop, len(p.CropEncoded)
	case p.CropRGB != nil:
		return admission.Crop, len(p.CropRGB)
	case p.Embedding.given():
		return admission.Embedding, len(p.Embedding.Vector)
	}
	return admission.Embedding, 0
}

// pixels is the size of a picture by its header; 0 for what is none, which is
// refused when it is decoded.
func pixels(data []byte) int {
	header, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return 0
	}
	return header.Width * header.Height
}
