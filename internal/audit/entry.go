package audit

import (
	"time"

	"github.com/closeouthq/closeout/zego"
)

// Entry is a line of the journal: what ZEGO would know of a session. A session
// of which nothing was ever sent has none.
type Entry struct {
	// AppID, RoomSessionID, RoomID, CloseReason and RoomCloseTime are what the
	// callback said. RoomSessionID is a string in JSON, as it is beyond 2^53.
	AppID         uint32    `json:"appid"`
	RoomSessionID uint64    `json:"room_session_id,string"`
	RoomID        string    `json:"room_id"`
	CloseReason   zego.Code `json:"close_reason"`
	RoomCloseTime time.Time `json:"room_close_time"`
	// Acknowledged says whether any delivery of the callback, original or copy, got
	// a 2XX: they say the same, so whoever acknowledged one has to see to the session.
	Acknowledged bool `json:"acknowledged"`
	// Undecided says that the run was stopped when nothing had been acknowledged and
	// not all had been tried. The webhook may have taken the callback all the same.
	Undecided bool `json:"undecided,omitempty"`
	// Status is what the first acknowledgement said, such as "started".
	Status string `json:"status,omitempty"`
	// Attempts is how many attempts of the original were begun.
	Attempts int `json:"attempts"`
	// Duplicates is how many copies were sent.
	Duplicates int `json:"duplicates"`
	// Events are what happened in the session, if that was played: who was there, and
	// which callbacks told of it.
	Events []Told `json:"events,omitempty"`
	// OfferedAt is when the first delivery was due, by this machine's clock.
	OfferedAt time.Time `json:"offered_at"`
	// AcknowledgedAfter is how long it then took to the first 2XX, in milliseconds.
	AcknowledgedAfter float64 `json:"acknowledged_after_ms,omitempty"`
}

// Told is a callback about a session's life: what happened, whether or not it was
// sent.
type Told struct {
	// Event is [zego.EventRoomCreate], [zego.EventRoomLogin] or [zego.EventRoomLogout].
	Event string `json:"event"`
	// Stay, User and Role are of a user's stay; empty of a room_create.
	Stay string    `json:"stay,omitempty"`
	User string    `json:"user,omitempty"`
	Role zego.Code `json:"role,omitempty"`
	// The times are those in the callback, to the millisecond.
	RoomCreateTime time.Time `json:"room_create_time,omitzero"`
	LoginTime      time.Time `json:"login_time,omitzero"`
	LogoutTime     time.Time `json:"logout_time,omitzero"`
	// Withheld says that it was never sent.
	Withheld bool `json:"withheld,omitempty"`
	// Acknowledged says whether any delivery got a 2XX, and Undecided that the run was
	// stopped before that or its end.
	Acknowledged bool `json:"acknowledged"`
	Undecided    bool `json:"undecided,omitempty"`
	// Attempts and Duplicates are how many were begun.
	Attempts   int `json:"attempts"`
	Duplicates int `json:"duplicates"`
}
