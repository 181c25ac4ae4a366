package zego

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// EventRoomClose is the event name of a [RoomClose].
const EventRoomClose = "room_close"

// Event is a parsed callback: a [*RoomClose], [*RoomCreate], [*RoomLogin],
// [*RoomLogout] or [*Recording], or an [*Other] for every event that has no type
// of its own here.
type Event interface {
	// Head returns the fields that all callbacks share.
	Head() *Common
}

// Common holds the fields that all callbacks share.
type Common struct {
	// Event is the event's name, such as "room_close".
	Event string
	// AppID is ZEGO's id of the app; it selects the secrets that may have signed.
	AppID uint32
	// Timestamp is ZEGO's clock when it sent the callback, as it was received: in Unix
	// seconds, or in milliseconds from ZEGO's newer products. See SentAt.
	Timestamp int64
	// Nonce is a random string; ZEGO's look like decimal numbers of 19 digits.
	Nonce string
	// Signature is the one received: 40 lower-case hex digits if it is genuine.
	Signature string
	// Fingerprint is a SHA-256 over all that was read of the body. Bodies that differ
	// in nothing that is read have the same one, so it tells a callback that ZEGO
	// repeats from another body under the same signature. It is set by
	// [Callback.Parse] and never sent.
	Fingerprint [32]byte
}

// SentAt returns when ZEGO sent the callback, by its clock, in UTC. It is the one
// time of a callback that the signature covers; zero if there is no Timestamp.
func (c *Common) SentAt() time.Time {
	if c.Timestamp == 0 {
		return time.Time{}
	}
	// In seconds this is the year 5138, in milliseconds 1973.
	if c.Timestamp >= 1e11 {
		return time.UnixMilli(c.Timestamp).UTC()
	}
	return time.Unix(c.Timestamp, 0).UTC()
}

// Head implements [Event].
func (c *Common) Head() *Common { return c }

// Other is a callback of an event that has no type of its own in this package.
// Nothing but the common fields was looked at.
type Other struct{ Common }

// Unreadable is a genuine callback that lacks a field without which it is no use, or
// has one that can't be read. [Callback.Unreadable] makes it; Parse returns none.
type Unreadable struct {
	Common
	// RoomID and TaskID are those of the callback, as far as they can be read.
	RoomID, TaskID string
	// Fault says what is wrong.
	Fault FieldError
}

// RoomClose says that a room was destroyed. ZEGO sends it at least once, in no
// particular order with the room's other callbacks.
type RoomClose struct {
	Common
	// RoomID is the room's name. It is reused: the next room of that name has
	// another RoomSessionID.
	RoomID string
	// RoomSessionID is one life of the room. It uses all 64 bits, so it must
	// never pass through a float or a JSON number that becomes one.
	RoomSessionID uint64
	// CloseReason says why the room was destroyed.
	CloseReason CloseReason
	// RoomCloseTime is when, by ZEGO's clock, to the millisecond and in UTC.
	RoomCloseTime time.Time
}

// CloseReason is ZEGO's close_reason. Values without a constant here are valid:
// ZEGO announces that it may add some.
type CloseReason uint32

// The reasons that ZEGO documents.
const (
	// CloseNormal is the normal end of a room.
	CloseNormal CloseReason = 0
	// CloseHeartbeatTimeout means that the last user's heartbeat timed out.
	CloseHeartbeatTimeout CloseReason = 1
	// CloseOffline means that the last user went offline.
	CloseOffline CloseReason = 2
	// CloseKickedOut means that the last user was kicked out.
	CloseKickedOut CloseReason = 3
	// CloseUnknown stands for a reason that the callback lacks, or that can't be read.
	CloseUnknown CloseReason = math.MaxUint32
)

// roomClose reads the fields of a room_close.
func (r *reader) roomClose(common Common) Event {
	r.read(closeFields)
	return &RoomClose{
		Common:        common,
		RoomID:        r.text("room_id"),
		RoomSessionID: r.session("room_session_id"),
		CloseReason:   CloseReason(r.optionalUnsigned("close_reason", math.MaxUint32, uint64(CloseUnknown))),
		RoomCloseTime: r.millis("room_close_time"),
	}
}

var closeFields = []field{{"room_id"}, {"room_session_id"}, {"close_reason"}, {"room_close_time"}}

// String returns the reason in a few words.
func (r CloseReason) String() string {
	switch r {
	case CloseNormal:
		return "normal"
	case CloseHeartbeatTimeout:
		return "last user's heartbeat timed out"
	case CloseOffline:
		return "last user went offline"
	case CloseKickedOut:
		return "last user was kicked out"
	case CloseUnknown:
		return "unknown"
	default:
		return "unknown reason " + strconv.FormatUint(uint64(r), 10)
	}
}

// MarshalJSON writes the callback's body as ZEGO sends it: room_session_id as a
// number, room_close_time as a string of Unix milliseconds. Use it to play ZEGO
// against one's own handler; set Signature with [Sign] before.
func (r RoomClose) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(struct {
		Event         string      `json:"event"`
		AppID         uint32      `json:"appid"`
		Timestamp     int64       `json:"timestamp"`
		Nonce         string      `json:"nonce"`
		Signature     string      `json:"signature"`
		RoomID        string      `json:"room_id"`
		RoomSessionID uint64      `json:"room_session_id"`
		CloseReason   CloseReason `json:"close_reason"`
		RoomCloseTime string      `json:"room_close_time"`
	}{
		EventRoomClose, r.AppID, r.Timestamp, r.Nonce, r.Signature,
		r.RoomID, r.RoomSessionID, r.CloseReason, strconv.FormatInt(r.RoomCloseTime.UnixMilli(), 10),
	})
	if err != nil {
		return nil, fmt.Errorf("encode room_close: %w", err)
	}
	return b, nil
}
