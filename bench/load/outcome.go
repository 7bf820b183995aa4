package load

import (
	"google.golang.org/protobuf/encoding/protowire"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// outcomeOf reads VerifyResponse.decision.outcome; the answer to an Identify has
// the same numbers: IdentifyResponse.results[0].decision.outcome is one level
// deeper. OUTCOME_UNSPECIFIED where there is no decision.
func outcomeOf(message []byte) pb.Outcome {
	inner, ok := field(message, 1)
	for range 2 {
		if !ok {
			break
		}
		// A decision begins with its outcome, a result with its decision.
		number, kind, n := protowire.ConsumeTag(inner)
		if n > 0 && number == 1 && kind == protowire.VarintType {
			if value, n := protowire.ConsumeVarint(inner[n:]); n > 0 {
				return pb.Outcome(value)
			}
			break
		}
		inner, ok = field(inner, 1)
	}
	return pb.Outcome_OUTCOME_UNSPECIFIED
}

// field returns the first submessage of a number.
func field(message []byte, want protowire.Number) ([]byte, bool) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, false
		}
		message = message[n:]
		if number == want && kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(message)
			return value, n >= 0
		}
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return nil, false
		}
		message = message[n:]
	}
	return nil, false
}
