package scope

import "fmt"

// State is where a scope stands in its life. It moves
// Active <-> Suspended -> Revoked; Revoked is final.
type State uint8

// The states. The zero State is none of them and permits nothing.
const (
	// Active: enrolment and matching are allowed until the scope's end.
	Active State = 1 + iota
	// Suspended: nothing matches and nobody is enrolled; erasure works.
	Suspended
	// Revoked: the purpose has ended; keys and templates are destroyed.
	Revoked
)

// String gives the state's name as the API writes it.
func (s State) String() string {
	switch s {
	case Active:
		return "ACTIVE"
	case Suspended:
		return "SUSPENDED"
	case Revoked:
		return "REVOKED"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Epoch counts the durable changes of one scope, from 1 at its creation. An
// answer carries the epoch of the snapshot that it was computed on.
type Epoch uint64
