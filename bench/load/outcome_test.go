package load

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

func TestOutcomeOf(t *testing.T) {
	decision := func(o pb.Outcome) *pb.Decision {
		score := 0.5
		return &pb.Decision{Outcome: o, Score: &score, Threshold: 0.4, Subject: "s", Scope: "x", DecideTime: timestamppb.Now()}
	}
	tests := map[string]struct {
		message proto.Message
		want    pb.Outcome
	}{
		"verify":        {&pb.VerifyResponse{Decision: decision(pb.Outcome_OUTCOME_MATCH)}, pb.Outcome_OUTCOME_MATCH},
		"identify":      {&pb.IdentifyResponse{Results: []*pb.FaceResult{{Decision: decision(pb.Outcome_OUTCOME_NO_MATCH)}}}, pb.Outcome_OUTCOME_NO_MATCH},
		"alternative":   {&pb.IdentifyResponse{Results: []*pb.FaceResult{{Decision: decision(pb.Outcome_OUTCOME_USE_ALTERNATIVE)}, {}}}, pb.Outcome_OUTCOME_USE_ALTERNATIVE},
		"empty":         {&pb.VerifyResponse{}, pb.Outcome_OUTCOME_UNSPECIFIED},
		"no results":    {&pb.IdentifyResponse{}, pb.Outcome_OUTCOME_UNSPECIFIED},
		"empty results": {&pb.IdentifyResponse{Results: []*pb.FaceResult{{}}}, pb.Outcome_OUTCOME_UNSPECIFIED},
	}
	for name, test := range tests {
		text, err := proto.Marshal(test.message)
		if err != nil {
			t.Fatal(err)
		}
		if got := outcomeOf(text); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func FuzzOutcomeOf(f *testing.F) {
	f.Add([]byte{0x0a, 0x02, 0x08, 0x01})
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(_ *testing.T, text []byte) { outcomeOf(text) })
}
