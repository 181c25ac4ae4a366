package zego

import "time"

// The event names of a room's callbacks.
const (
	EventRoomClose  = "room_close"
	EventRoomCreate = "room_create"
	EventRoomLogin  = "room_login"
	EventRoomLogout = "room_logout"

	EventStreamCreate = "stream_create"
	EventStreamClose  = "stream_close"
)

// RoomClose reports that a room was destroyed. ZEGO sends it at least once, in no
// particular order with the room's other callbacks.
type RoomClose struct {
	Common
	// RoomID is the room's name. Names are reused: the next room with the same name has
	// another RoomSessionID.
	RoomID string
	// RoomSessionID identifies one life of the room. It uses all 64 bits, so never convert
	// it to a float or to a JSON number that becomes one.
	RoomSessionID uint64
	// CloseReason is why the room was destroyed.
	CloseReason Code
	// RoomCloseTime is when the room was destroyed, by ZEGO's clock, to the millisecond
	// and in UTC.
	RoomCloseTime time.Time
}

// RoomCreate reports that a room was created by its first user's login.
type RoomCreate struct {
	Common
	// RoomID is the room's name, as in [RoomClose].
	RoomID string
	// RoomSessionID identifies the life of the room that begins here.
	RoomSessionID uint64
	// RoomCreateTime is when the room was created, by ZEGO's clock, to the millisecond and
	// in UTC. It is zero if unknown.
	RoomCreateTime time.Time
	// Creator is the ID of the user that created the room. It may be empty.
	Creator string
}

// RoomLogin reports that a user entered a room.
type RoomLogin struct {
	Common
	// RoomID is the room's name, as in [RoomClose].
	RoomID string
	// RoomSessionID identifies the life of the room. The callback calls it room_seq.
	RoomSessionID uint64
	// UserAccount is the user's name.
	UserAccount string
	// SessionID identifies the user's stay, from this login to its logout. It is not the
	// room's session.
	SessionID string
	// LoginTime is when the user entered, by ZEGO's clock, to the millisecond and in UTC.
	// In a [RoomLogout] it is zero if unknown.
	LoginTime time.Time
	// UserRole is the user_role. It is empty for 0 too, which means no role.
	UserRole Code
	// Nickname is the user_nickname. It may be empty.
	Nickname string
	// UserUpdateSeq numbers the logins and logouts of the room's session.
	UserUpdateSeq Sequence
}

// Sequence is a number that ZEGO increments with each event of a kind. ZEGO doesn't
// document whether it starts at 0 or 1.
type Sequence struct {
	Number uint64
	// Valid reports whether the callback has a number that can be read.
	Valid bool
}

// RoomLogout reports that a user left a room. It has both ends of the stay, so no time is
// lost with a [RoomLogin] that doesn't arrive.
type RoomLogout struct {
	RoomLogin
	// LogoutTime is when the user left, by ZEGO's clock, to the millisecond and in UTC. It
	// may be earlier than LoginTime, because ZEGO promises no order.
	LogoutTime time.Time
	// Reason is why the user left: 0 normal; 1 and 2 heartbeat or connection lost; 3
	// logged in elsewhere or kicked out; 4 token expired.
	Reason Code
}

var (
	closeFields  = fieldsOf("room_id", "room_session_id", "close_reason", "room_close_time")
	createFields = fieldsOf("operator_account", "room_id", "room_session_id", "room_create_time", "id_name")
	stayFields   = fieldsOf("room_id", "room_seq", "user_account", "session_id", "login_time", "logout_time", "user_role", "reason", "user_nickname", "user_update_seq")
	streamFields = fieldsOf("room_id", "room_session_id", "user_id", "user_name", "stream_id", "stream_sid", "stream_seq", "create_time_ms", "destroy_timemillis", "type")
)

func (r *reader) roomClose(common Common) Event {
	r.read(closeFields)
	return &RoomClose{
		Common:        common,
		RoomID:        r.text("room_id"),
		RoomSessionID: r.session("room_session_id"),
		CloseReason:   r.code("close_reason"),
		RoomCloseTime: r.millis("room_close_time"),
	}
}

// roomCreate returns an [Other] for the event of the same name of ZEGO's in-app chat, which
// has an operator_account and no room_session_id.
func (r *reader) roomCreate(common Common) Event {
	r.read(createFields)
	if r.err == nil && r.found[r.slot("operator_account")] != "" && !r.has("room_session_id") {
		return r.other(common)
	}
	return &RoomCreate{
		Common:         common,
		RoomID:         r.text("room_id"),
		RoomSessionID:  r.session("room_session_id"),
		RoomCreateTime: r.optionalMillis("room_create_time"),
		Creator:        r.optionalText("id_name", maxText),
	}
}

// stay reads the fields that room_login and room_logout share, except the login time.
func (r *reader) stay(common Common) RoomLogin {
	r.read(stayFields)
	l := RoomLogin{
		Common:        common,
		RoomID:        r.text("room_id"),
		RoomSessionID: r.session("room_seq"),
		UserAccount:   r.text("user_account"),
		SessionID:     r.text("session_id"),
		UserRole:      r.code("user_role"),
		Nickname:      r.optionalText("user_nickname", maxText),
		UserUpdateSeq: r.sequence("user_update_seq"),
	}
	if l.UserRole == "0" {
		l.UserRole = ""
	}
	return l
}

func (r *reader) roomLogin(common Common) Event {
	login := r.stay(common)
	login.LoginTime = r.millis("login_time")
	return &login
}

func (r *reader) roomLogout(common Common) Event {
	logout := &RoomLogout{RoomLogin: r.stay(common)}
	logout.LoginTime = r.optionalMillis("login_time")
	logout.LogoutTime = r.millis("logout_time")
	logout.Reason = r.code("reason")
	return logout
}

// StreamCreate reports that a user began to publish a stream.
type StreamCreate struct {
	Common
	// RoomID is the room's name, as in [RoomClose].
	RoomID string
	// RoomSessionID identifies the life of the room.
	RoomSessionID uint64
	// UserID is the publisher's user_account, and UserName the nickname, which may be empty.
	UserID, UserName string
	// StreamSID identifies the stream from its creation to its close. StreamID is the
	// stream's name, which is reused and may be empty.
	StreamSID, StreamID string
	// StreamSeq numbers the changes of streams in the room's session.
	StreamSeq Sequence
	// CreateTime is when the stream began, by ZEGO's clock, to the millisecond and in UTC.
	// In a [StreamClose] it is zero if unknown.
	CreateTime time.Time
}

// StreamClose reports that a stream has ended. It has both ends of the stream, so no time
// is lost with a [StreamCreate] that doesn't arrive.
type StreamClose struct {
	StreamCreate
	// CloseTime is when the stream ended, by ZEGO's clock, to the millisecond and in UTC.
	CloseTime time.Time
	// Type is why the stream ended: 0 stopped by the user; 1 heartbeat lost; 2 the user
	// logged in again; 3 kicked out; 4 connection lost; 5 the room was cleared; 100 stopped
	// through the server API.
	Type Code
}

// stream reads the fields that stream_create and stream_close share, except the times.
func (r *reader) stream(common Common) StreamCreate {
	r.read(streamFields)
	return StreamCreate{
		Common:        common,
		RoomID:        r.text("room_id"),
		RoomSessionID: r.session("room_session_id"),
		UserID:        r.text("user_id"),
		UserName:      r.optionalText("user_name", maxText),
		StreamSID:     r.text("stream_sid"),
		StreamID:      r.optionalText("stream_id", maxText),
		StreamSeq:     r.sequence("stream_seq"),
	}
}

func (r *reader) streamCreate(common Common) Event {
	s := r.stream(common)
	s.CreateTime = r.millis("create_time_ms")
	return &s
}

func (r *reader) streamClose(common Common) Event {
	s := &StreamClose{StreamCreate: r.stream(common)}
	s.CreateTime = r.optionalMillis("create_time_ms")
	s.CloseTime = r.millis("destroy_timemillis")
	s.Type = r.code("type")
	return s
}
