package target

import (
	"bytes"
	"errors"
	"image/jpeg"
	"os"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

func TestRequests(t *testing.T) {
	scenes, err := DrawnScenes(1)
	if err != nil {
		t.Fatal(err)
	}
	tenant := &Tenant{Scope: "tenants/a/scopes/b", ModelID: "m@1", Dim: 128, Gallery: 10, Faces: 4, Seed: 1}
	for _, probe := range []string{Embedding, Crop, JPEGCrop, Image} {
		made, err := tenant.Requests(Kind{Verify, probe}, 6, scenes)
		if err != nil || len(made) != 6 {
			t.Fatalf("%s: %d, %v", probe, len(made), err)
		}
		for _, r := range made {
			var req pb.VerifyRequest
			if err := proto.Unmarshal(r.Body, &req); err != nil || r.Method != pb.MatchService_Verify_FullMethodName {
				t.Fatalf("%s: %s, %v", probe, r.Method, err)
			}
			ok := false
			switch k := req.Probe.Kind.(type) {
			case *pb.Probe_Embedding:
				ok = probe == Embedding && len(k.Embedding.Vector) == 4*128 && k.Embedding.ModelId == "m@1"
			case *pb.Probe_Crop:
				ok = probe == Crop && len(k.Crop.GetRgb()) == 112*112*3
				if probe == JPEGCrop {
					img, err := jpeg.Decode(bytes.NewReader(k.Crop.GetEncoded()))
					ok = err == nil && img.Bounds().Dx() == 112 && img.Bounds().Dy() == 112
				}
			case *pb.Probe_Image:
				img, err := jpeg.Decode(bytes.NewReader(k.Image.Data))
				ok = probe == Image && err == nil && img.Bounds().Dx() == SceneWidth && img.Bounds().Dy() == SceneHeight
			}
			if !ok {
				t.Errorf("%s: the probe is not what was asked for: %T", probe, req.Probe.Kind)
			}
		}
	}
	if _, err := tenant.Requests(Kind{Identify, Image}, 1, nil); !errors.Is(err, ErrKind) {
		t.Errorf("images without images: %v", err)
	}
	items, err := tenant.StreamRequests(Kind{Verify, Embedding}, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i, item := range items {
		var req pb.MatchStreamRequest
		if err := proto.Unmarshal(item, &req); err != nil || req.SequenceId != uint64(i)+1 || req.GetVerify().GetSubject() == "" {
			t.Errorf("item %d: %v, %v", i, &req, err)
		}
	}
}

func TestDialerRefusesOthersServers(t *testing.T) {
	for address, remote := range map[string]bool{"example.com:443": false, "8.8.8.8:443": false, "0.0.0.0:1": false, "nonsense": true, ":7443": false} {
		if _, err := NewDialer(address, "", remote); !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %v, want ErrAddress", address, err)
		}
	}
	for address, remote := range map[string]bool{"127.0.0.1:7443": false, "[::1]:7443": false, "localhost:1": false, "10.1.2.3:4": false, "example.com:443": true} {
		if _, err := NewDialer(address, "", remote); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	u, ok := UsageOf(os.Getpid())
	if !ok {
		t.Skip("the system does not tell")
	}
	if u.RSS < 1<<20 || u.Peak < u.RSS {
		t.Errorf("%+v", u)
	}
	if _, ok := UsageOf(1 << 30); ok {
		t.Error("a process that is not there has a usage")
	}
}

func TestRunSaysWhatFailed(t *testing.T) {
	_, err := Run(t.Context(), t.TempDir()+"/address", "sh", "-c", "echo admin key: secret >&2; echo no such thing >&2; exit 3")
	if !errors.Is(err, ErrChild) || !bytes.Contains([]byte(err.Error()), []byte("no such thing")) || bytes.Contains([]byte(err.Error()), []byte("secret")) {
		t.Errorf("%v", err)
	}
}

// Photographs of any form become camera images.
func TestPhotographs(t *testing.T) {
	scenes, err := DrawnScenes(2)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"a.jpg": scenes[0], "b.JPEG": scenes[1], "notes.txt": []byte("no picture")} {
		if err := os.WriteFile(dir+"/"+name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := Photographs(dir)
	if err != nil || len(made) != 2 {
		t.Fatalf("%d scenes, %v", len(made), err)
	}
	for _, data := range made {
		if img, err := jpeg.Decode(bytes.NewReader(data)); err != nil || img.Bounds().Dx() != SceneWidth || img.Bounds().Dy() != SceneHeight {
			t.Errorf("not a camera image: %v", err)
		}
	}
	if _, err := Photographs(t.TempDir()); !errors.Is(err, ErrPhotos) {
		t.Errorf("an empty folder: %v", err)
	}
}
