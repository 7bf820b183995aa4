package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// maxProbeFile bounds what is read of an image file; servers accept less.
const maxProbeFile = 256 << 20

const cropUsage = "the files are aligned 112x112 face crops: JPEG, PNG, or raw RGB (37632 bytes)"

// readProbe makes a probe of an image file. JPEG and PNG are sent as they are;
// PGM and PPM, which the API does not take, are sent as PNG.
func readProbe(path string, crop bool) (*menshenv1.Probe, error) {
	data, err := readImageFile(path)
	if err != nil {
		return nil, err
	}
	switch {
	case crop && len(data) == 3*align.Size*align.Size && !encodedImage(data):
		return &menshenv1.Probe{Kind: &menshenv1.Probe_Crop{Crop: &menshenv1.FaceCrop{Pixels: &menshenv1.FaceCrop_Rgb{Rgb: data}}}}, nil
	case crop:
		return &menshenv1.Probe{Kind: &menshenv1.Probe_Crop{Crop: &menshenv1.FaceCrop{Pixels: &menshenv1.FaceCrop_Encoded{Encoded: data}}}}, nil
	}
	return &menshenv1.Probe{Kind: &menshenv1.Probe_Image{Image: &menshenv1.CameraImage{Data: data}}}, nil
}

func readImageFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProbeFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxProbeFile {
		return nil, fmt.Errorf("%s has more than %d bytes; no server takes such an image, so scale it down", path, maxProbeFile)
	}
	if len(data) > 1 && data[0] == 'P' && (data[1] == '5' || data[1] == '6') {
		img, err := decode.DecodeAny(data, decode.DefaultLimits())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return img.EncodePNG()
	}
	return data, nil
}

// encodedImage reports whether data begins like a JPEG or PNG file.
func encodedImage(data []byte) bool {
	return bytes.HasPrefix(data, []byte{0xff, 0xd8, 0xff}) || bytes.HasPrefix(data, []byte("\x89PNG"))
}

// blame puts the name of the image file before an error that the server has about
// it. The fields of probes are named probe, where there is one, or probes[i].
func blame(err error, paths []string) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, d := range st.Details() {
		bad, _ := d.(*errdetails.BadRequest)
		for _, v := range bad.GetFieldViolations() {
			n := 0
			if v.Field != "probe" {
				if _, err := fmt.Sscanf(v.Field, "probes[%d]", &n); err != nil {
					continue
				}
			}
			if n >= 0 && n < len(paths) {
				return fmt.Errorf("%s: %w", oneLine(paths[n]), err)
			}
		}
	}
	return err
}

// readProbes reads several files and reports all that cannot be read.
func readProbes(paths []string, crop bool) ([]*menshenv1.Probe, error) {
	var (
		probes []*menshenv1.Probe
		errs   []error
	)
	for _, path := range paths {
		p, err := readProbe(path, crop)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		probes = append(probes, p)
	}
	return probes, errors.Join(errs...)
}
