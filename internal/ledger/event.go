package ledger

import (
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Event is the content of one callback about a session or a recording.
type Event struct {
	// ID is the session's. A recording callback has only its AppID.
	session.ID
	// RoomID is the room's name.
	RoomID string `json:"room_id"`
	// Event is [zego.EventRoomCreate], [zego.EventRoomLogin], [zego.EventRoomLogout],
	// [zego.EventStreamCreate] or [zego.EventStreamClose].
	Event string `json:"event"`
	// Stay is the session_id of the user's stay, or the stream_sid of the stream; empty for a
	// room_create.
	Stay string `json:"stay,omitempty"`
	// Name is the user's nickname or the stream's stream_id.
	Name string `json:"name,omitempty"`
	// Number is the user_update_seq or the stream_seq plus 1; 0 without one.
	Number int64 `json:"number,omitempty"`
	// User is the user_account; empty for a room_create.
	User string `json:"user,omitempty"`
	// Role is the user_role.
	Role zego.Code `json:"role,omitempty"`
	// Create is the room_create_time of a room_create.
	Create time.Time `json:"create,omitzero"`
	// Close is the room_close_time of a room_close that contradicts the first one of its
	// session. Other room_close callbacks are not stored as events.
	Close time.Time `json:"close,omitzero"`
	// Login and Logout are the ends of the stay or stream that the callback states.
	Login  time.Time `json:"login,omitzero"`
	Logout time.Time `json:"logout,omitzero"`
	// LogoutReason is the reason of a room_logout, or the type of a stream_close.
	LogoutReason zego.Code `json:"logout_reason,omitempty"`
	// SentAt is the callback's timestamp, by ZEGO's clock. It is the only signed time.
	SentAt time.Time `json:"sent_at,omitzero"`
	// Implausible reports that the callback has an impossible time: see [Event.Plausible].
	Implausible bool `json:"implausible,omitempty"`
	// SeenAt is when the callback was received, by our clock. Bills do not depend on it.
	SeenAt time.Time `json:"seen_at"`
	// Recording is set for a recording callback. It does not name its session.
	Recording *Recording `json:"recording,omitempty"`
	// Unreadable is set for a genuine callback that was refused. Its session is unknown.
	Unreadable *Unreadable `json:"unreadable,omitempty"`
}

// EventOf converts a callback. It reports false for an event that the ledger does not store.
func EventOf(event zego.Event, seenAt time.Time) (u Event, ok bool) {
	stay := func(event string, l *zego.RoomLogin) Event {
		return Event{ID: session.ID{AppID: l.AppID, RoomSessionID: l.RoomSessionID}, RoomID: l.RoomID, Event: event,
			Stay: l.SessionID, User: l.UserAccount, Role: l.UserRole, Name: l.Nickname, Number: numberOf(l.UserUpdateSeq), Login: l.LoginTime, SentAt: l.SentAt(), SeenAt: seenAt}
	}
	stream := func(event string, s *zego.StreamCreate) Event {
		return Event{ID: session.ID{AppID: s.AppID, RoomSessionID: s.RoomSessionID}, RoomID: s.RoomID, Event: event, Stay: s.StreamSID,
			Name: s.StreamID, Number: numberOf(s.StreamSeq), User: s.UserID, Login: s.CreateTime, SentAt: s.SentAt(), SeenAt: seenAt}
	}
	switch e := event.(type) {
	case *zego.StreamCreate:
		return stream(zego.EventStreamCreate, e), true
	case *zego.StreamClose:
		u = stream(zego.EventStreamClose, &e.StreamCreate)
		u.Logout, u.LogoutReason = e.CloseTime, e.Type
		return u, true
	case *zego.RoomCreate:
		return Event{ID: session.ID{AppID: e.AppID, RoomSessionID: e.RoomSessionID}, RoomID: e.RoomID, Event: zego.EventRoomCreate, Create: e.RoomCreateTime, SentAt: e.SentAt(), SeenAt: seenAt}, true
	case *zego.RoomLogin:
		return stay(zego.EventRoomLogin, e), true
	case *zego.Recording:
		return recordingOf(e, seenAt), true
	case *zego.Unreadable:
		return Event{ID: session.ID{AppID: e.AppID}, RoomID: e.RoomID, Event: e.Event, SentAt: e.SentAt(), SeenAt: seenAt,
			Unreadable: &Unreadable{TaskID: e.TaskID, Field: e.Fault.Field, Problem: e.Fault.Problem}}, true
	case *zego.RoomLogout:
		u = stay(zego.EventRoomLogout, &e.RoomLogin)
		u.Logout, u.LogoutReason = e.LogoutTime, e.Reason
		return u, true
	}
	return u, false
}

func numberOf(s zego.Sequence) int64 {
	if !s.Valid {
		return 0
	}
	return int64(s.Number) + 1
}

// stream reports whether the callback is about a stream.
func (u Event) stream() bool {
	return u.Event == zego.EventStreamCreate || u.Event == zego.EventStreamClose
}

// Plausible returns u without impossible times. A logout after SentAt becomes SentAt. A start
// after SentAt, or more than maxRoomLife before it, becomes unknown; 0 means no limit.
func (u Event) Plausible(maxRoomLife time.Duration) Event {
	sent := u.SentAt
	if sent.IsZero() {
		return u
	}
	later := func(t time.Time) bool { return t.After(sent.Add(session.ClockTolerance)) }
	older := func(t time.Time) bool { return maxRoomLife > 0 && !t.IsZero() && t.Before(sent.Add(-maxRoomLife)) }
	for _, begin := range []*time.Time{&u.Create, &u.Login} {
		if later(*begin) || older(*begin) {
			*begin, u.Implausible = time.Time{}, true
		}
	}
	switch {
	case later(u.Logout):
		u.Logout, u.Implausible = sent, true
	case older(u.Logout): // it stays, and ends the stay before it counts
		u.Implausible = true
	}
	return u
}
