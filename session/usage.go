package session

import "time"

// Usage holds the figures that a session is billed by. They are comparable.
type Usage struct {
	// Start and End bound the life of the room. Start is zero if it is unknown.
	Start time.Time `json:"start,omitzero"`
	End   time.Time `json:"end"`
	// StartFrom and EndFrom name the source of Start and End: room_create, room_close,
	// room_login or reconciliation.
	StartFrom string `json:"start_from,omitempty"`
	EndFrom   string `json:"end_from"`
	// Participants counts users, and Stays their logins.
	Participants int64 `json:"participants"`
	Stays        int64 `json:"stays"`
	// Millis is the time that participants spent in the room. Overlapping stays of one
	// user count once. Seconds is Millis rounded down, and Minutes is Seconds rounded up.
	Millis  int64 `json:"participant_milliseconds"`
	Seconds int64 `json:"participant_seconds"`
	Minutes int64 `json:"participant_minutes"`
	// Estimated lists why the figures may be inexact. It is empty if they are exact.
	Estimated Reasons `json:"estimated"`
	// Published is the time that participants published, in milliseconds. Overlapping
	// streams of one user count once. PublishedSeconds is Published rounded down, and
	// PublishedEstimated lists why Published may be inexact.
	Published          int64   `json:"published_milliseconds,omitempty"`
	PublishedSeconds   int64   `json:"published_seconds,omitempty"`
	PublishedEstimated Reasons `json:"published_estimated,omitempty"`
	// Callbacks reports whether callbacks of logins and logouts are missing, and
	// StreamCallbacks whether callbacks of streams are.
	Callbacks       Completeness `json:"callbacks,omitzero"`
	StreamCallbacks Completeness `json:"stream_callbacks,omitzero"`
	// Excluded names up to 20 of the users who are not participants, with reasons.
	Excluded string `json:"excluded,omitempty"`
}
