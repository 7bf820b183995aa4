package target

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/menshen-io/menshen/bench/faces"
	"github.com/menshen-io/menshen/bench/search"
	"github.com/menshen-io/menshen/models/align"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// ErrKind: no such kind of request.
var ErrKind = errors.New("unknown kind of request")

// Kind is what is asked and with what.
type Kind struct{ Verb, Probe string }

// The verbs and probes that there are.
const (
	Verify   = "verify"
	Identify = "identify"

	Embedding = "embedding" // float32 values
	Crop      = "crop"      // 112x112 raw RGB
	JPEGCrop  = "jpegcrop"  // 112x112 as JPEG
	Image     = "image"     // a camera image, JPEG 640x480
)

// ParseKind reads verb:probe. Error: ErrKind.
func ParseKind(text string) (Kind, error) {
	verb, probe, _ := strings.Cut(text, ":")
	k := Kind{verb, probe}
	if verb != Verify && verb != Identify {
		return k, fmt.Errorf("%w: %q is not verify or identify, a colon and a probe", ErrKind, text)
	}
	switch probe {
	case Embedding, Crop, JPEGCrop, Image:
		return k, nil
	}
	return k, fmt.Errorf("%w: %q: the probe is one of embedding, crop, jpegcrop and image", ErrKind, text)
}

func (k Kind) String() string { return k.Verb + ":" + k.Probe }

// Request is one call, encoded.
type Request struct {
	Method string
	Body   []byte
}

// Requests makes n different requests of a kind. Every second probe is mated, as
// far as somebody is enrolled; a stranger's Verify claims somebody else. scenes
// are the camera images that requests with images take in turn.
func (t *Tenant) Requests(k Kind, n int, scenes [][]byte) ([]Request, error) {
	if k.Probe == Image && len(scenes) == 0 {
		return nil, fmt.Errorf("%w: %s: there are no images", ErrKind, k)
	}
	generator := search.NewSource(search.Spectrum, t.Dim, t.Seed).Generator()
	people := faces.New(t.Seed)
	values := make([]float32, t.Dim)
	out := make([]Request, n)
	for j := range out {
		claimed := 0 // the subject that is claimed
		probe := &pb.Probe{}
		switch k.Probe {
		case Embedding:
			claimed = j % max(t.Gallery, 1)
			mate := -1
			if j%2 == 0 && t.Gallery > 0 {
				mate = claimed
			}
			generator.Probe(values, j, mate)
			probe = t.embedding(values)
		case Crop, JPEGCrop:
			person := j
			if t.Faces > 0 {
				person = j % t.Faces
				claimed = t.Gallery + (person+j%2)%t.Faces
			}
			crop := people.Crop(person, 1+j)
			pixels := &pb.FaceCrop{Pixels: &pb.FaceCrop_Rgb{Rgb: crop.Pix}}
			if k.Probe == JPEGCrop {
				encoded, err := encodeCrop(crop)
				if err != nil {
					return nil, err
				}
				pixels.Pixels = &pb.FaceCrop_Encoded{Encoded: encoded}
			}
			probe.Kind = &pb.Probe_Crop{Crop: pixels}
		case Image:
			claimed = t.Gallery + j%max(t.Faces, 1)
			probe.Kind = &pb.Probe_Image{Image: &pb.CameraImage{Data: scenes[j%len(scenes)]}}
		}
		var message proto.Message = &pb.IdentifyRequest{Probe: probe, Scope: t.Scope, MaxCandidates: 1}
		out[j].Method = pb.MatchService_Identify_FullMethodName
		if k.Verb == Verify {
			message = &pb.VerifyRequest{Subject: t.Scope + "/subjects/" + t.subjectID(claimed), Probe: probe}
			out[j].Method = pb.MatchService_Verify_FullMethodName
		}
		var err error
		if out[j].Body, err = proto.Marshal(message); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// StreamRequests makes the requests of a MatchStream, with the sequence ids 1,
// 2, ... .
func (t *Tenant) StreamRequests(k Kind, n int) ([][]byte, error) {
	unary, err := t.Requests(k, n, nil)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, n)
	for j, r := range unary {
		item := &pb.MatchStreamRequest{SequenceId: uint64(j) + 1}
		if k.Verb == Verify {
			inner := &pb.VerifyRequest{}
			item.Request, err = &pb.MatchStreamRequest_Verify{Verify: inner}, proto.Unmarshal(r.Body, inner)
		} else {
			inner := &pb.IdentifyRequest{}
			item.Request, err = &pb.MatchStreamRequest_Identify{Identify: inner}, proto.Unmarshal(r.Body, inner)
		}
		if err == nil {
			out[j], err = proto.Marshal(item)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// cropQuality is the JPEG quality of crops: a gate that sends them compressed
// would not lose much.
const cropQuality = 90

func encodeCrop(c *align.Crop) ([]byte, error) {
	return encode(rgba(c.Pix, align.Size, align.Size), cropQuality)
}

func encode(img image.Image, quality int) ([]byte, error) {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality}); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// rgba turns three bytes a pixel into an image.
func rgba(pix []byte, w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		copy(img.Pix[4*i:], pix[3*i:3*i+3])
		img.Pix[4*i+3] = 0xff
	}
	return img
}
