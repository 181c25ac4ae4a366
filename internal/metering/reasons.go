package metering

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"strings"
)

// Reasons are why figures may not be the truth.
type Reasons uint32

// The reasons.
const (
	// NotCollected means that the callbacks of logins and logouts are not taken.
	NotCollected Reasons = 1 << iota
	// NoUsage means that none of them came.
	NoUsage
	// NoRoomCreate means that no room_create came.
	NoRoomCreate
	// NoRoomClose means that no room_close came.
	NoRoomClose
	// NoLogin means that a stay has no login; it is counted from the room's begin.
	NoLogin
	// NoLogout means that a stay has no logout; it is counted to the room's end.
	NoLogout
	// LogoutBeforeLogin means that a stay ends ahead of its begin; it counts nothing.
	LogoutBeforeLogin
	// OutsideRoom means that a stay begins after the room's end, or ends ahead of its
	// begin; it counts nothing.
	OutsideRoom
	// Contradicted means that callbacks contradict each other.
	Contradicted
	// ImplausibleTime means that a callback told a time that can't be.
	ImplausibleTime
	// EventsLost means that the ledger lost what it was told while the room was there,
	// and that a person had it billed all the same.
	EventsLost
	// NoStay means that a user without any callback of a stay published.
	NoStay
	// NoStreamCreate and NoStreamClose mean that a stream lacks one of its ends.
	NoStreamCreate
	NoStreamClose
	// NoStreams means that no callback of any stream came.
	NoStreams
	// MissingCallbacks means that the numbers of callbacks prove that some are missing.
	MissingCallbacks
	// RolesUnclear means that a user of role 4 is counted, and may be no participant.
	RolesUnclear
)

var names = []string{"not_collected", "no_usage", "no_room_create", "no_room_close", "no_login", "no_logout", "logout_before_login", "outside_room", "contradicted", "implausible_time", "events_lost", "no_stay", "no_stream_create", "no_stream_close", "no_streams", "missing_callbacks", "roles_unclear"}

// Names are the reasons in words, in a fixed order.
func (r Reasons) Names() []string {
	found := make([]string, 0, bits.OnesCount32(uint32(r)))
	for i, name := range names {
		if r&(1<<i) != 0 {
			found = append(found, name)
		}
	}
	return found
}

// String is the reasons' names with a space in between.
func (r Reasons) String() string { return strings.Join(r.Names(), " ") }

// ParseReasons is the inverse of [Reasons.String].
func ParseReasons(s string) (r Reasons, err error) {
	for word := range strings.FieldsSeq(s) {
		known := false
		for i, name := range names {
			if name == word {
				r, known = r|1<<i, true
			}
		}
		if !known {
			return 0, fmt.Errorf("reason for an estimate: found %q, want one of %s", word, strings.Join(names, ", "))
		}
	}
	return r, nil
}

// MarshalJSON writes the names as a list, which is empty if there are none.
func (r Reasons) MarshalJSON() ([]byte, error) { return json.Marshal(r.Names()) }

// UnmarshalJSON is the inverse of MarshalJSON.
func (r *Reasons) UnmarshalJSON(b []byte) (err error) {
	var found []string
	if err := json.Unmarshal(b, &found); err != nil {
		return err
	}
	*r, err = ParseReasons(strings.Join(found, " "))
	return err
}
