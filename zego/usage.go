package zego

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// The event names of [RoomCreate], [RoomLogin] and [RoomLogout].
const (
	EventRoomCreate = "room_create"
	EventRoomLogin  = "room_login"
	EventRoomLogout = "room_logout"
)

// RoomCreate says that a room was created, by its first user's login.
type RoomCreate struct {
	Common
	// RoomID is the room's name, as in [RoomClose].
	RoomID string
	// RoomSessionID is the life of the room that begins here.
	RoomSessionID uint64
	// RoomCreateTime is when, by ZEGO's clock, to the millisecond and in UTC; zero if
	// that isn't known.
	RoomCreateTime time.Time
	// Creator is the user that created it, id_name; it may be empty.
	Creator string
}

// UserRole is ZEGO's user_role.
type UserRole uint32

// RoleService is the role of users that are no participants: those that record
// the room or moderate it.
const RoleService UserRole = 4

// RoomLogin says that a user entered a room.
type RoomLogin struct {
	Common
	// RoomID is the room's name, as in [RoomClose].
	RoomID string
	// RoomSessionID is the life of the room; the callback calls it room_seq.
	RoomSessionID uint64
	// UserAccount is the user's name.
	UserAccount string
	// SessionID names the user's stay, from this login to its logout. It is not
	// the room's.
	SessionID string
	// LoginTime is when, by ZEGO's clock, to the millisecond and in UTC. Of a
	// [RoomLogout] it is zero if it isn't known.
	LoginTime time.Time
	// UserRole is 0 if the callback has none.
	UserRole UserRole
}

// RoomLogout says that a user left a room. It has both ends of the stay, so that
// a [RoomLogin] that was lost is no loss.
type RoomLogout struct {
	RoomLogin
	// LogoutTime is when, by ZEGO's clock, to the millisecond and in UTC. It may be
	// ahead of LoginTime, as nothing is promised.
	LogoutTime time.Time
	// Reason is why: 0 normal; 1 and 2 the heartbeat or the connection was lost; 3
	// logged in elsewhere or kicked out; 4 the token expired. 0 if the callback has
	// none.
	Reason uint32
}

// roomCreate reads the fields of a room_create. ZEGO's in-app chat has an event
// of the same name, of which this package knows nothing: it has an
// operator_account and no room_session_id.
func (r *reader) roomCreate(common Common) Event {
	r.read(createFields)
	if r.err == nil && r.has("operator_account") && !r.has("room_session_id") {
		return &Other{common}
	}
	return &RoomCreate{
		Common:         common,
		RoomID:         r.text("room_id"),
		RoomSessionID:  r.session("room_session_id"),
		RoomCreateTime: r.optionalMillis("room_create_time"),
		Creator:        r.optionalText("id_name", maxText),
	}
}

var createFields = []field{{"operator_account"}, {"room_id"}, {"room_session_id"}, {"room_create_time"}, {"id_name"}}

// stay reads what a room_login and a room_logout have in common, but for the login
// time.
func (r *reader) stay(common Common) RoomLogin {
	r.read(stayFields)
	return RoomLogin{
		Common:        common,
		RoomID:        r.text("room_id"),
		RoomSessionID: r.session("room_seq"),
		UserAccount:   r.text("user_account"),
		SessionID:     r.text("session_id"),
		UserRole:      UserRole(r.optionalUnsigned("user_role", math.MaxUint32, 0)),
	}
}

var stayFields = []field{{"room_id"}, {"room_seq"}, {"user_account"}, {"session_id"}, {"login_time"}, {"logout_time"}, {"user_role"}, {"reason"}}

func (r *reader) roomLogin(common Common) Event {
	login := r.stay(common)
	login.LoginTime = r.millis("login_time")
	return &login
}

func (r *reader) roomLogout(common Common) Event {
	logout := &RoomLogout{RoomLogin: r.stay(common)}
	logout.LoginTime = r.optionalMillis("login_time")
	logout.LogoutTime = r.millis("logout_time")
	logout.Reason = uint32(r.optionalUnsigned("reason", math.MaxUint32, 0))
	return logout
}

// MarshalJSON writes the callback's body as ZEGO sends it: room_session_id as a
// number, room_create_time as a string of Unix milliseconds. Use it to play ZEGO
// against one's own handler; set Signature with [Sign] before.
func (r RoomCreate) MarshalJSON() ([]byte, error) {
	return encode(EventRoomCreate, struct {
		Event          string `json:"event"`
		AppID          uint32 `json:"appid"`
		Timestamp      int64  `json:"timestamp"`
		Nonce          string `json:"nonce"`
		Signature      string `json:"signature"`
		RoomID         string `json:"room_id"`
		RoomSessionID  uint64 `json:"room_session_id"`
		RoomCreateTime string `json:"room_create_time"`
		Creator        string `json:"id_name"`
	}{EventRoomCreate, r.AppID, r.Timestamp, r.Nonce, r.Signature, r.RoomID, r.RoomSessionID, unixMilli(r.RoomCreateTime), r.Creator})
}

// login is what room_login and room_logout have in common. All of it is strings,
// the numbers too.
type login struct {
	Event         string `json:"event"`
	AppID         uint32 `json:"appid,string"`
	Timestamp     int64  `json:"timestamp,string"`
	Nonce         string `json:"nonce"`
	Signature     string `json:"signature"`
	RoomID        string `json:"room_id"`
	RoomSessionID uint64 `json:"room_seq,string"`
	UserAccount   string `json:"user_account"`
	SessionID     string `json:"session_id"`
	LoginTime     string `json:"login_time"`
	UserRole      uint32 `json:"user_role,string"`
}

func (r RoomLogin) login(event string) login {
	return login{event, r.AppID, r.Timestamp, r.Nonce, r.Signature, r.RoomID, r.RoomSessionID, r.UserAccount, r.SessionID, unixMilli(r.LoginTime), uint32(r.UserRole)}
}

// MarshalJSON is as that of [RoomCreate], but that ZEGO sends all numbers of a
// room_login as strings.
func (r RoomLogin) MarshalJSON() ([]byte, error) {
	return encode(EventRoomLogin, r.login(EventRoomLogin))
}

// MarshalJSON is as that of [RoomLogin].
func (r RoomLogout) MarshalJSON() ([]byte, error) {
	return encode(EventRoomLogout, struct {
		login
		LogoutTime string `json:"logout_time"`
		Reason     uint32 `json:"reason,string"`
	}{r.login(EventRoomLogout), unixMilli(r.LogoutTime), r.Reason})
}

func encode(event string, fields any) ([]byte, error) {
	b, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", event, err)
	}
	return b, nil
}

func unixMilli(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }
