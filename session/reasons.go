package session

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Reasons is a set of reasons why figures may be inexact.
type Reasons uint32

// The reasons.
const (
	// NotCollected means that participant callbacks are switched off.
	NotCollected Reasons = 1 << iota
	// NoUsage means that no login or logout arrived.
	NoUsage
	// NoRoomCreate means that no room_create arrived.
	NoRoomCreate
	// NoRoomClose means that no room_close arrived.
	NoRoomClose
	// NoLogin means that a stay has no login. It counts from the start of the room.
	NoLogin
	// NoLogout means that a stay has no logout. It counts until the end of the room.
	NoLogout
	// LogoutBeforeLogin means that a stay ends before it starts. It does not count.
	LogoutBeforeLogin
	// OutsideRoom means that a stay starts after the end of the room, or ends before its
	// start. It does not count.
	OutsideRoom
	// Contradicted means that callbacks contradict each other.
	Contradicted
	// ImplausibleTime means that a callback states an impossible time.
	ImplausibleTime
	// EventsLost means that a restored ledger lost callbacks of the session, and that an
	// operator approved a bill without them.
	EventsLost
	// NoStay means that a user published without a login or logout.
	NoStay
	// NoStreamCreate and NoStreamClose mean that a stream lacks one of its ends.
	NoStreamCreate
	NoStreamClose
	// NoStreams means that no stream callback arrived.
	NoStreams
	// MissingCallbacks means that sequence numbers prove that callbacks are missing.
	MissingCallbacks
	// RolesUnclear means that a user with role 4 counts, but may not be a participant.
	RolesUnclear
	// OtherReason stands for the reasons of a newer version.
	OtherReason
)

var reasonNames = []string{"not_collected", "no_usage", "no_room_create", "no_room_close", "no_login", "no_logout", "logout_before_login", "outside_room", "contradicted", "implausible_time", "events_lost", "no_stay", "no_stream_create", "no_stream_close", "no_streams", "missing_callbacks", "roles_unclear", "other"}

// Names returns the names of the reasons in a fixed order.
func (r Reasons) Names() []string {
	found := make([]string, 0, bits.OnesCount32(uint32(r)))
	for i, name := range reasonNames {
		if r&(1<<i) != 0 {
			found = append(found, name)
		}
	}
	return found
}

// String returns the names, separated by spaces.
func (r Reasons) String() string { return strings.Join(r.Names(), " ") }

// ParseReasons is the inverse of [Reasons.String]. An unknown name is [OtherReason].
func ParseReasons(s string) (r Reasons) {
	for name := range strings.FieldsSeq(s) {
		if i := slices.Index(reasonNames, name); i >= 0 {
			r |= 1 << i
		} else {
			r |= OtherReason
		}
	}
	return r
}

// MarshalJSON encodes the names as a list.
func (r Reasons) MarshalJSON() ([]byte, error) { return json.Marshal(r.Names()) }

// UnmarshalJSON is the inverse of MarshalJSON. An unknown name is [OtherReason].
func (r *Reasons) UnmarshalJSON(b []byte) error {
	var names []string
	if err := json.Unmarshal(b, &names); err != nil {
		return fmt.Errorf("reasons for an estimate: want a list of names: %w", err)
	}
	*r = ParseReasons(strings.Join(names, " "))
	return nil
}
