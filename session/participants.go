package session

import (
	"iter"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// Participants describes the users of a session's room. A step gets it from
// activities.Participants.
type Participants struct {
	// Session is the session.
	Session Session
	// Start and End bound the life of the room. Start is zero if it is unknown.
	Start, End time.Time
	// Settled reports whether the figures are final, because the session's bill or one of
	// its adjustments has them. Otherwise there is no bill yet, and further callbacks
	// change the figures.
	Settled bool
	// Callbacks reports whether callbacks of logins and logouts are missing, and
	// StreamCallbacks whether callbacks of streams are. If Settled, both are as billed.
	Callbacks, StreamCallbacks Completeness
	// Adjustment is the number of the adjustment that has these figures, or 0 for the bill.
	Adjustment int
	// All yields the users of the room, sorted by name. It reads page by page, so a room
	// may have any number of users. It ends after the first error.
	All iter.Seq2[Participant, error]
}

// Participant is a user of a session's room.
type Participant struct {
	// User is ZEGO's user_account.
	User string `json:"user"`
	// Names are the user's nicknames, sorted.
	Names []string `json:"names,omitempty"`
	// Role is the user_role as ZEGO sent it, or empty if it sent none. It is meaningful
	// only in apps with ZEGO's LiveRoom SDK.
	Role zego.Code `json:"role"`
	// Excluded is the reason why the user is not a participant, such as "role 4". It is
	// empty for a participant.
	Excluded string `json:"excluded,omitempty"`
	// Stays are in the order of their logins. Stays and Streams include callbacks that
	// arrived after the bill.
	Stays []Stay `json:"stays,omitempty"`
	// Streams are the user's streams in the order of their creation.
	Streams []Stream `json:"streams,omitempty"`
	// InRoom is the user's time in the room. Overlapping stays count once.
	InRoom Span `json:"in_room"`
	// Published is the time that the user published. Overlapping streams count once.
	// ZEGO's callbacks do not distinguish audio from video.
	Published Span `json:"published"`
	// Before is the user's time that the bill and earlier adjustments have billed. It is
	// zero in the figures of the bill itself.
	Before Billed `json:"before,omitzero"`
}

// Billed returns the user's billed time, which is zero for an excluded user.
func (p Participant) Billed() Billed {
	if p.Excluded != "" {
		return Billed{}
	}
	return Billed{InRoom: p.InRoom.Millis, Published: p.Published.Millis}
}

// Billed is a participant's time, in milliseconds.
type Billed struct {
	// InRoom and Published correspond to the fields of [Participant].
	InRoom    int64 `json:"in_room_milliseconds"`
	Published int64 `json:"published_milliseconds"`
}

// A Span is a length of time in milliseconds, with bounds if it isn't exact.
type Span struct {
	// Millis is the billed length. A missing end counts as the latest possible time, and a
	// missing beginning as the earliest.
	Millis int64 `json:"milliseconds"`
	// Min and Max bound the true length. Max is -1 if nothing bounds it.
	Min int64 `json:"min_milliseconds"`
	Max int64 `json:"max_milliseconds"`
	// Reasons lists, by their names in a bill, why the length may be inexact. It is empty
	// if the length is exact.
	Reasons Reasons `json:"reasons"`
}

// Exact reports whether the length is exact.
func (s Span) Exact() bool { return s.Reasons == 0 }

// Seconds returns the length in whole seconds, rounded down. A bill rounds once: it sums
// the milliseconds of all participants first.
func (s Span) Seconds() int64 { return s.Millis / 1000 }

// Minutes returns Seconds in minutes, rounded up.
func (s Span) Minutes() int64 { return Minutes(s.Millis) }

// Minutes converts milliseconds to minutes as a bill does: rounded down to seconds, then
// up to minutes.
func Minutes(millis int64) int64 { return (millis/1000 + 59) / 60 }

// Stay is one stay of a user, from a login to the logout.
type Stay struct {
	// SessionID is ZEGO's session_id. It is empty if no callback of the stay arrived, and
	// only a stream shows that the user was in the room.
	SessionID string `json:"session_id"`
	// Login and Logout are the ends of the stay.
	Login  End `json:"login"`
	Logout End `json:"logout"`
}

// Stream is one stream of a user, from its creation to its close.
type Stream struct {
	// StreamSID is ZEGO's stream_sid, and StreamID the stream's name.
	StreamSID string `json:"stream_sid"`
	StreamID  string `json:"stream_id"`
	// Create and Close are the ends of the stream.
	Create End `json:"create"`
	Close  End `json:"close"`
}

// Certainty is how exactly an [End] is known.
type Certainty string

// The certainties.
const (
	// Stated means that ZEGO stated the time.
	Stated Certainty = "stated"
	// Bounded means that the time is between Earliest and Latest.
	Bounded Certainty = "bounded"
	// Missing means that at least one of the bounds is unknown.
	Missing Certainty = "missing"
)

// End is one end of a stay or a stream.
type End struct {
	// Time is the time used for billing, or zero if there is none.
	Time time.Time `json:"time,omitzero"`
	// Certainty is how exactly the time is known.
	Certainty Certainty `json:"certainty"`
	// Earliest and Latest bound the true time. If Certainty is [Stated], both equal Time.
	// An unknown bound is zero.
	Earliest time.Time `json:"earliest,omitzero"`
	Latest   time.Time `json:"latest,omitzero"`
}
