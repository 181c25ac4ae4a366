// Package session identifies one life of a ZEGO room. The [ID] of a session names its
// Workflow, its archive folder and its idempotency keys.
package session

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/zego"
)

// ID identifies a session: ZEGO numbers the lives of an app's rooms.
type ID struct {
	// AppID is ZEGO's appid.
	AppID uint32 `json:"appid"`
	// RoomSessionID is ZEGO's room_session_id. In JSON it is a string, because many
	// JSON readers round large numbers.
	RoomSessionID uint64 `json:"room_session_id,string"`
}

// String returns "<appid>-<room_session_id>".
func (id ID) String() string {
	return strconv.FormatUint(uint64(id.AppID), 10) + "-" + strconv.FormatUint(id.RoomSessionID, 10)
}

// ParseID is the inverse of [ID.String]. It accepts no other form.
func ParseID(s string) (ID, error) {
	app, number, _ := strings.Cut(s, "-")
	a, appErr := strconv.ParseUint(app, 10, 32)
	n, err := strconv.ParseUint(number, 10, 64)
	id := ID{AppID: uint32(a), RoomSessionID: n}
	if appErr != nil || err != nil || id.String() != s {
		return ID{}, fmt.Errorf("session %q: want <appid>-<room_session_id>", s)
	}
	return id, nil
}

// WorkflowIDPrefix begins the Workflow ID of every session.
const WorkflowIDPrefix = "room-close-"

// WorkflowID returns "room-close-<appid>-<room_session_id>". Temporal accepts each
// Workflow ID once, so a session has exactly one run.
func (id ID) WorkflowID() string { return WorkflowIDPrefix + id.String() }

// ParseWorkflowID is the inverse of [ID.WorkflowID].
func ParseWorkflowID(s string) (ID, error) {
	rest, prefixed := strings.CutPrefix(s, WorkflowIDPrefix)
	id, err := ParseID(rest)
	if !prefixed || err != nil {
		return ID{}, fmt.Errorf("workflow ID %q: want %s<appid>-<room_session_id>", s, WorkflowIDPrefix)
	}
	return id, nil
}

// Folder returns the session's folder in a bucket, "<appid>/<room_session_id>/".
func (id ID) Folder() string {
	return fmt.Sprintf("%d/%d/", id.AppID, id.RoomSessionID)
}

// keyspace is the UUID namespace of idempotency keys.
var keyspace = uuid.MustParse("dae2ee15-f6ee-579e-bf43-12098b064d47")

// IdempotencyKey returns the key of a step's effects for the session, a UUIDv5 of
// the Workflow ID and the step's name. Every run of the step has the same key.
func (id ID) IdempotencyKey(step string) uuid.UUID {
	return uuid.NewSHA1(keyspace, []byte(id.WorkflowID()+"/"+step))
}

// Session describes a session after its room has closed.
type Session struct {
	ID
	// RoomID is the room's name. Other sessions of the app can have the same name.
	RoomID string `json:"room_id"`
	// CloseReason is why ZEGO destroyed the room: see [zego.CloseReasonText].
	CloseReason zego.Code `json:"close_reason"`
	// RoomCloseTime is when ZEGO destroyed the room, by its clock.
	RoomCloseTime time.Time `json:"room_close_time"`
	// SentAt is the signed timestamp of the room_close, or zero if none arrived.
	SentAt time.Time `json:"sent_at,omitzero"`
	// ReportedCloseTime is the callback's room_close_time if that is impossible, because it
	// is later than SentAt by more than [ClockTolerance]. RoomCloseTime is then SentAt.
	ReportedCloseTime time.Time `json:"reported_room_close_time,omitzero"`
	// Reconciled reports that no room_close arrived, and that ZEGO was asked and no longer
	// has the room. RoomCloseTime is then the best estimate.
	Reconciled bool `json:"reconciled,omitempty"`
	// Settling is the time after the run's start in which ZEGO may still retry callbacks
	// of the session. The starter sets it from CLOSEOUT_SETTLING.
	Settling Duration `json:"settling,omitempty"`
}

// ClockTolerance bounds by how much a time in a callback may be later than the callback's
// signed timestamp. ZEGO sends a callback after the event, but its servers' clocks differ.
const ClockTolerance = 5 * time.Minute

// Of returns the session that a room_close reports. It leaves out the callback's
// signature, which doesn't belong in a Workflow's history.
func Of(c *zego.RoomClose) Session {
	s := Session{
		ID:     ID{AppID: c.AppID, RoomSessionID: c.RoomSessionID},
		RoomID: c.RoomID, CloseReason: c.CloseReason, RoomCloseTime: c.RoomCloseTime, SentAt: c.SentAt(),
	}
	if !s.SentAt.IsZero() && s.RoomCloseTime.After(s.SentAt.Add(ClockTolerance)) {
		s.ReportedCloseTime, s.RoomCloseTime = s.RoomCloseTime, s.SentAt
	}
	return s
}

// Duration is a [time.Duration] whose JSON is text, such as "1m30s".
type Duration time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}
