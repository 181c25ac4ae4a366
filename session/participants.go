package session

import (
	"iter"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// Participants describes who was in a session's room. A step gets it from
// activities.Participants.
type Participants struct {
	// Session is the session.
	Session Session
	// Start and End are when the room was there. Start is zero if it is unknown.
	Start, End time.Time
	// Settled reports whether the figures are final: those of the session's bill, or of
	// one of its adjustments. Otherwise the bill is not made yet, the figures are those
	// of the callbacks that have arrived, and later ones change them.
	Settled bool
	// Callbacks is whether callbacks of logins and logouts are missing, and StreamCallbacks
	// whether those of streams are: from the figures, if Settled.
	Callbacks, StreamCallbacks Completeness
	// Adjustment is the number of the adjustment that the figures are of; 0 for the bill.
	Adjustment int
	// All yields the users of the room in the order of their names. It reads page by
	// page, so that a room may have any number of them. An error ends it.
	All iter.Seq2[Participant, error]
}

// Participant is a user of a session's room.
type Participant struct {
	// User is ZEGO's user_account.
	User string `json:"user"`
	// Names are the nicknames that the user had, sorted.
	Names []string `json:"names,omitempty"`
	// Role is the user_role as ZEGO sent it; empty if it sent none. It means something only
	// in apps that use ZEGO's LiveRoom SDK.
	Role zego.Code `json:"role"`
	// Excluded is why the user is not a participant, such as "role 4"; empty for a
	// participant.
	Excluded string `json:"excluded,omitempty"`
	// Stays are in the order of their logins. They and Streams are as they are known now.
	Stays []Stay `json:"stays,omitempty"`
	// Streams are what the user published, in the order in which it began.
	Streams []Stream `json:"streams,omitempty"`
	// InRoom is how long the user was in the room. Stays that overlap count once.
	InRoom Span `json:"in_room"`
	// Published is how long the user published. Streams that overlap count once. ZEGO's
	// callbacks do not separate audio from video.
	Published Span `json:"published"`
	// Before is what the bill and the adjustments before this one have billed of the
	// user; zero if these are the figures of the bill.
	Before Billed `json:"before,omitzero"`
}

// Billed returns what of the user is billed: nothing of a user who is excluded.
func (p Participant) Billed() Billed {
	if p.Excluded != "" {
		return Billed{}
	}
	return Billed{InRoom: p.InRoom.Millis, Published: p.Published.Millis}
}

// Billed is a participant's time, in milliseconds.
type Billed struct {
	// InRoom and Published are those of [Participant].
	InRoom    int64 `json:"in_room_milliseconds"`
	Published int64 `json:"published_milliseconds"`
}

// A Span is a length of time in milliseconds, and what is known of it.
type Span struct {
	// Millis is the length that is billed. An end that is missing counts at its latest
	// bound, and a beginning that is missing at its earliest.
	Millis int64 `json:"milliseconds"`
	// Min and Max bound the true length. Max is -1 if nothing bounds it.
	Min int64 `json:"min_milliseconds"`
	Max int64 `json:"max_milliseconds"`
	// Reasons are why the length may not be exact, by their names in a bill; none if it
	// is exact.
	Reasons []string `json:"reasons"`
}

// Exact reports whether the length is exact.
func (s Span) Exact() bool { return len(s.Reasons) == 0 }

// Seconds returns the length in whole seconds, rounded down. The seconds of a bill are
// those of the sum of all milliseconds.
func (s Span) Seconds() int64 { return s.Millis / 1000 }

// Minutes returns how many minutes of Seconds have begun.
func (s Span) Minutes() int64 { return Minutes(s.Millis) }

// Minutes returns how many minutes have begun in so many milliseconds, which are rounded
// down to seconds first, as in a bill.
func Minutes(millis int64) int64 { return (millis/1000 + 59) / 60 }

// Stay is one stay of a user, from a login to the logout.
type Stay struct {
	// SessionID is ZEGO's session_id; empty if no callback of the stay came, and a stream
	// shows that the user was there.
	SessionID string `json:"session_id"`
	// Login and Logout are its ends.
	Login  End `json:"login"`
	Logout End `json:"logout"`
}

// Stream is what a user published, from its creation to its close.
type Stream struct {
	// StreamSID is ZEGO's stream_sid, and StreamID the stream's name.
	StreamSID string `json:"stream_sid"`
	StreamID  string `json:"stream_id"`
	// Create and Close are its ends.
	Create End `json:"create"`
	Close  End `json:"close"`
}

// Certainty is what is known of an [End].
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
	// Time is the time that counts; zero if none does.
	Time time.Time `json:"time,omitzero"`
	// Certainty is what is known of it.
	Certainty Certainty `json:"certainty"`
	// Earliest and Latest bound the true time. They are Time if it is stated, and zero
	// where they are unknown.
	Earliest time.Time `json:"earliest,omitzero"`
	Latest   time.Time `json:"latest,omitzero"`
}
