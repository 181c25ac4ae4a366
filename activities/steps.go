package activities

import (
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/zego"
)

// Session is one life of a room, as its room_close told it.
type Session struct {
	// AppID is ZEGO's id of the app.
	AppID uint32 `json:"appid"`
	// RoomID is the room's name; other sessions have had it or will have it.
	RoomID string `json:"room_id"`
	// RoomSessionID names the session within the app. In JSON it is a string, as
	// many readers of JSON would round the number.
	RoomSessionID uint64 `json:"room_session_id,string"`
	// CloseReason is why the room was destroyed.
	CloseReason zego.CloseReason `json:"close_reason"`
	// RoomCloseTime is when, by ZEGO's clock.
	RoomCloseTime time.Time `json:"room_close_time"`
	// SentAt is when ZEGO sent the room_close, by its clock: the one time of it that is
	// signed. It is zero if none came.
	SentAt time.Time `json:"sent_at,omitzero"`
	// CloseTimeTold is what the callback told, if it can't be: later than SentAt. The
	// RoomCloseTime is SentAt then.
	CloseTimeTold time.Time `json:"room_close_time_told,omitzero"`
	// Reconciled says that no room_close came, and that the room was found gone. Its
	// RoomCloseTime is then the best that is known of its end.
	Reconciled bool `json:"reconciled,omitempty"`
	// Settling is how long after the start of the run ZEGO may still retry callbacks
	// of the session. Whoever starts the run sets it, from CLOSEOUT_SETTLING.
	Settling Duration `json:"settling,omitempty"`
}

// Duration is a [time.Duration] whose JSON is its text, as in "1m30s".
type Duration time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// clockTolerance is how much later than the signed timestamp a time may be.
const clockTolerance = 5 * time.Minute

// SessionOf takes the session out of a callback, and leaves behind what proves
// the callback: no signature belongs in a workflow's history.
func SessionOf(c *zego.RoomClose) Session {
	s := Session{
		AppID: c.AppID, RoomID: c.RoomID, RoomSessionID: c.RoomSessionID, CloseReason: c.CloseReason, RoomCloseTime: c.RoomCloseTime, SentAt: c.SentAt(),
	}
	if !s.SentAt.IsZero() && s.RoomCloseTime.After(s.SentAt.Add(clockTolerance)) {
		s.CloseTimeTold, s.RoomCloseTime = s.RoomCloseTime, s.SentAt
	}
	return s
}

// Key names the session in one word that no other session has, whatever the app:
// "<appid>-<room_session_id>".
func (s Session) Key() string {
	return strconv.FormatUint(uint64(s.AppID), 10) + "-" + strconv.FormatUint(s.RoomSessionID, 10)
}

// Adjustment says which adjustment of a bill is to be made.
type Adjustment struct {
	// Session is what was billed.
	Session Session `json:"session"`
	// Number counts the adjustments of the bill from 1.
	Number int `json:"number"`
}

// SessionFolder is where a session's objects lie in both buckets:
// "<appid>/<room_session_id>/". An app that starts a recording sets the task's
// OutputFolder to it, as nothing else in a recording tells the session.
func SessionFolder(s Session) string {
	return strconv.FormatUint(uint64(s.AppID), 10) + "/" + strconv.FormatUint(s.RoomSessionID, 10) + "/"
}

// ManifestKey is where the archive has a session's first manifest.
func ManifestKey(s Session) string { return SessionFolder(s) + "manifest.json" }

// Task is what a step is given.
type Task struct {
	// Session is what there is to close out.
	Session Session `json:"session"`
	// IdempotencyKey is the same for every run of this step for this session, and
	// no other has it. Hand it to whatever the step changes.
	IdempotencyKey uuid.UUID `json:"idempotency_key"`
	// Reset is the run's ID if it is a reset of another, which may have done the step.
	Reset string `json:"reset,omitempty"`
	// Waited is how long the step has waited; nil unless it said that it has to, by a
	// [Waiting].
	Waited *Waited `json:"waited,omitempty"`
	// Retried is set if a person had the blocked step retried.
	Retried *Retried `json:"retried,omitempty"`
}

// Retried is what a person saw and decided who had a blocked step retried.
type Retried struct {
	// Failure is why the step was blocked.
	Failure string `json:"failure"`
	// Reason is the person's.
	Reason string `json:"reason"`
}
