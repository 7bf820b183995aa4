package matcher

import (
	"context"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/matcher/admission"
)

// Admission is the limiter that the matcher's calls pass.
func (m *Matcher) Admission() *admission.Limiter { return m.admission }

// admit asks for the core time and the memory that the probes need: once, before
// anything of them is decoded. Pictures whose headers say that they will not be
// decoded are refused here, with the errors of models/decode.
func (m *Matcher) admit(ctx context.Context, sc *scopeEntry, ask admission.Ask, probes ...Probe) (admission.Ticket, error) {
	ask.Tenant, ask.Work.Count = string(sc.ref.Tenant), len(probes)
	for i, p := range probes {
		kind, size := p.weigh()
		ask.Work.Probe = max(ask.Work.Probe, kind)
		ask.Bytes += size
		picture := p.picture()
		if picture == nil {
			continue
		}
		cost, err := m.perception.Measure(picture)
		if err != nil {
			if ask.Work.Op == admission.Enroll {
				err = &ProbeError{Index: i, Err: err}
			}
			return admission.Ticket{}, err
		}
		ask.Bytes += int(cost.Bytes)
		if kind == admission.Image {
			ask.Work.Pixels = max(ask.Work.Pixels, int(cost.Pixels)*max(1, cost.Passes/usualPasses))
		}
	}
	if ask.Work.Op == admission.Identify && sc.gallery != nil {
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

// usualPasses is the scans of an ordinary progressive JPEG; a hundred of them
// weigh as ten such pictures.
const usualPasses = 10

// picture is the probe's JPEG or PNG; nil if it has none.
func (p Probe) picture() []byte {
	if p.Image != nil {
		return p.Image
	}
	return p.CropEncoded
}
