package rpc

import (
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/models/quality"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// faceMessage is nil where no face was looked for.
func faceMessage(f *matcher.DetectedFace) *pb.DetectedFace {
	if f == nil {
		return nil
	}
	out := &pb.DetectedFace{
		Box:            &pb.Box{X: f.Box.X, Y: f.Box.Y, Width: f.Box.W, Height: f.Box.H},
		DetectionScore: f.Score,
		FacesInImage:   int32(f.FacesInImage),
	}
	for _, p := range f.Landmarks {
		out.Landmarks = append(out.Landmarks, &pb.Point{X: p.X, Y: p.Y})
	}
	return out
}

func findingMessages(findings []quality.Finding) []*pb.QualityFinding {
	var out []*pb.QualityFinding
	for _, f := range findings {
		out = append(out, &pb.QualityFinding{Code: string(f), Text: f.Text()})
	}
	return out
}
