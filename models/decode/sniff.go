package decode

import "bytes"

// Format is a file format that this package decodes.
type Format string

// The formats. PNM stands for binary PGM (P5) and PPM (P6).
const (
	JPEG Format = "jpeg"
	PNG  Format = "png"
	PNM  Format = "pnm"
)

const (
	jpegSignature = "\xff\xd8\xff"
	pngSignature  = "\x89PNG\r\n\x1a\n"
)

// Sniff tells the format from the first bytes, or "" when it is none of the
// three.
func Sniff(data []byte) Format {
	switch {
	case bytes.HasPrefix(data, []byte(jpegSignature)):
		return JPEG
	case bytes.HasPrefix(data, []byte(pngSignature)):
		return PNG
	case len(data) >= 3 && data[0] == 'P' && (data[1] == '5' || data[1] == '6') && (isSpace(data[2]) || data[2] == '#'):
		return PNM
	}
	return ""
}

// foreign lists formats that people send by mistake: what their first
// bytes are, and the words for it.
var foreign = [...]struct {
	magic string
	name  string
}{
	{"GIF87a", "a GIF image"},
	{"GIF89a", "a GIF image"},
	{"II*\x00", "a TIFF or camera raw image"},
	{"MM\x00*", "a TIFF or camera raw image"},
	{"%PDF-", "a PDF document"},
	{"BM", "a BMP image"},
	{"8BPS", "a Photoshop image"},
	{"\x00\x00\x01\x00", "an icon file"},
	{"\x00\x00\x00\x0cJXL ", "a JPEG XL image"},
	{"\xff\x0a", "a JPEG XL image"},
	{"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"},
	{"\xff\x4f\xff\x51", "a JPEG 2000 image"},
	{"qoif", "a QOI image"},
	{"PK\x03\x04", "a ZIP archive"},
	{"\x1f\x8b", "a gzip archive"},
	{"\x1aE\xdf\xa3", "a WebM or Matroska video"},
	{"<svg", "an SVG drawing"},
	{"<?xml", "an XML or SVG file"},
	{"<!DOCTYPE", "a web page"},
	{"<html", "a web page"},
	{"data:image/", "a data: URL"},
	{"/9j/", "base64 text of a JPEG file, not the file's bytes"},
	{"iVBORw0KGgo", "base64 text of a PNG file, not the file's bytes"},
	{"P1", "a plain or bitmap PNM image"},
	{"P2", "a plain or bitmap PNM image"},
	{"P3", "a plain or bitmap PNM image"},
	{"P4", "a plain or bitmap PNM image"},
	{"P7", "a PAM image"},
}

// foreignName names a format that is recognised and not accepted, with its
// article ("a WebP image"), or returns "".
func foreignName(data []byte) string {
	if len(data) >= 12 && string(data[:4]) == "RIFF" {
		switch string(data[8:12]) {
		case "WEBP":
			return "a WebP image"
		case "AVI ":
			return "an AVI video"
		}
		return "a RIFF file (sound or video)"
	}
	if len(data) >= 12 && string(data[4:8]) == "ftyp" {
		switch string(data[8:12]) {
		case "avif", "avis":
			return "an AVIF image"
		case "heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1":
			return "a HEIC image"
		}
		return "an MP4 or QuickTime video"
	}
	for _, f := range foreign {
		if bytes.HasPrefix(data, []byte(f.magic)) {
			return f.name
		}
	}
	return ""
}

func isSpace(b byte) bool {
	return b == ' ' || (b >= '\t' && b <= '\r')
}
