// Package metering computes how long the participants of a session were in its room,
// and what that costs. It does no I/O, and all times are ZEGO's.
//
// Time is counted in milliseconds, as ZEGO sends it. A session's milliseconds are
// rounded down to seconds once, those up to minutes once, and the amount is the
// minutes times the price: see [Figures].
package metering

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Room describes a session's room. Times are Unix milliseconds of ZEGO's clock.
type Room struct {
	// Create is the time of creation; 0 if no room_create arrived.
	Create int64
	// Close is the time of destruction. Without a room_close it is an estimate, no earlier
	// than the last time of any stay.
	Close int64
	// Reconciled reports that no room_close arrived.
	Reconciled bool
	// Contradicted reports whether two callbacks disagree about the room.
	Contradicted bool
	// Implausible reports whether a callback states an impossible time.
	Implausible bool
	// Callbacks and StreamCallbacks report whether callbacks are missing.
	Callbacks, StreamCallbacks session.Completeness
	// Streams reports whether any stream callback arrived.
	Streams bool
	// Roles reports whether a user has a role of the LiveRoom SDK other than
	// [zego.RoleService].
	Roles bool
	// RolesUnclear reports whether a counted user with role 4 may not be a participant.
	RolesUnclear bool
}

// Times summarizes the stays of a session, in Unix milliseconds; 0 if unknown.
type Times struct {
	// FirstLogin is the earliest login, Last the latest login or logout, and LastLogout
	// the latest logout.
	FirstLogin, Last, LastLogout int64
}

// Plausible returns the room with an end that fits its stays. doubt is not empty if the room
// ends before it starts and no logout helps.
func (r Room) Plausible(t Times) (_ Room, doubt string) {
	begin := cmp.Or(r.Create, t.FirstLogin)
	switch {
	case r.Reconciled: // what arrived since may know better
		r.Close = max(r.Close, t.Last)
	case r.Close < begin && t.LastLogout >= begin:
		r.Close, r.Implausible = t.Last, true
	case r.Close < begin:
		r.Implausible = true
		doubt = fmt.Sprintf("the room closed at %s, before it began at %s, and no logout has its end",
			time.UnixMilli(r.Close).UTC().Format(time.RFC3339Nano), time.UnixMilli(begin).UTC().Format(time.RFC3339Nano))
	}
	return r, doubt
}

// late is how many milliseconds after a room's end a logout may be, because ZEGO's servers
// have different clocks.
const late = 5 * 60 * 1000

// Source names the source of a room's start or end.
type Source string

// The sources.
const (
	// FromRoomCreate and FromRoomClose are the callbacks.
	FromRoomCreate Source = "room_create"
	FromRoomClose  Source = "room_close"
	// FromLogin is the first login, without a room_create.
	FromLogin Source = "room_login"
	// FromReconciliation means that the room was found gone without a room_close.
	FromReconciliation Source = "reconciliation"
)

// Figures are the figures that a session is billed by. They are comparable.
type Figures struct {
	// Start and End bound the life of the room, in UTC. Start is zero if unknown.
	Start time.Time `json:"start,omitzero"`
	End   time.Time `json:"end"`
	// StartFrom and EndFrom are their sources.
	StartFrom Source `json:"start_from,omitempty"`
	EndFrom   Source `json:"end_from"`
	// Participants is the number of participants, and Stays that of their stays.
	Participants int64 `json:"participants"`
	Stays        int64 `json:"stays"`
	// Millis is the sum of the participants' times in the room, in milliseconds.
	// Overlapping stays of a participant count once.
	Millis int64 `json:"participant_milliseconds"`
	// Seconds is Millis in whole seconds, rounded down.
	Seconds int64 `json:"participant_seconds"`
	// Minutes is Seconds in minutes, rounded up.
	Minutes int64 `json:"participant_minutes"`
	// Estimated lists why the figures may be inexact. Empty means that they are exact.
	Estimated Reasons `json:"estimated"`
	// Published is the sum of the participants' publishing times, in milliseconds.
	// Overlapping streams of a participant count once. PublishedSeconds is Published in
	// whole seconds.
	Published        int64 `json:"published_milliseconds"`
	PublishedSeconds int64 `json:"published_seconds"`
	// PublishedEstimated lists why these may be inexact.
	PublishedEstimated Reasons `json:"published_estimated"`
	// Callbacks reports whether login and logout callbacks are missing, and StreamCallbacks
	// whether stream callbacks are.
	Callbacks       session.Completeness `json:"callbacks"`
	StreamCallbacks session.Completeness `json:"stream_callbacks"`
	// Excluded lists the users that are not participants, and why.
	Excluded string `json:"excluded,omitempty"`
}

// Usage returns the figures in their public type.
func (f Figures) Usage() session.Usage {
	return session.Usage{
		Start: f.Start, End: f.End, StartFrom: string(f.StartFrom), EndFrom: string(f.EndFrom),
		Participants: f.Participants, Stays: f.Stays,
		Millis: f.Millis, Seconds: f.Seconds, Minutes: f.Minutes, Estimated: f.Estimated.Names(),
		Published: f.Published, PublishedSeconds: f.PublishedSeconds, PublishedEstimated: f.PublishedEstimated.Names(),
		Callbacks: f.Callbacks, StreamCallbacks: f.StreamCallbacks, Excluded: f.Excluded,
	}
}

// ErrTooLarge means that a sum exceeds 63 bits.
var ErrTooLarge = errors.New("more than 63 bits can hold")

// Meter computes the figures of a session. Users are added one by one, so that memory does
// not depend on their number.
type Meter struct {
	room     Room
	figures  Figures
	first    int64 // the earliest login
	given    bool  // whether any user had a stay
	large    bool
	excluded int // number of excluded users
	lengths  lengths
}

// NewMeter returns a Meter for a session.
func NewMeter(room Room) *Meter {
	return &Meter{room: room}
}

// Add adds a user with all stays and streams, which it sorts, and returns the user's
// figures. exclude may be nil.
func (m *Meter) Add(u User, exclude Exclude) session.Participant {
	p, known, inRoom, published := m.measure(u)
	if exclude != nil {
		p.Excluded = exclude(p)
	}
	for _, s := range u.Stays {
		m.given = true
		// A recorder's login also proves that the room existed.
		if s.Login != 0 && (m.first == 0 || s.Login < m.first) {
			m.first = s.Login
		}
	}
	m.figures.Estimated |= known
	if p.Excluded != "" {
		m.exclude(p)
		return p
	}
	if m.room.RolesUnclear && p.Role == zego.RoleService {
		m.figures.Estimated |= RolesUnclear
	}
	m.figures.Participants++
	m.figures.Stays += int64(len(u.Stays))
	m.figures.Estimated |= inRoom
	sum, carry := bits.Add64(uint64(m.figures.Millis), uint64(p.InRoom.Millis), 0)
	m.large = m.large || carry != 0 || sum>>63 != 0
	m.figures.Millis = int64(sum)
	sum, carry = bits.Add64(uint64(m.figures.Published), uint64(p.Published.Millis), 0)
	m.large = m.large || carry != 0 || sum>>63 != 0
	m.figures.Published = int64(sum)
	m.figures.PublishedEstimated |= published
	return p
}

// maxExcluded bounds the excluded users that are listed by name.
const maxExcluded = 20

func (m *Meter) exclude(p session.Participant) {
	switch m.excluded++; {
	case m.excluded > maxExcluded:
		return
	case m.excluded > 1:
		m.figures.Excluded += ", "
	}
	m.figures.Excluded += p.User + " (" + p.Excluded + ")"
}

// Figures returns the figures of the added users. The error is [ErrTooLarge].
func (m *Meter) Figures() (Figures, error) {
	if m.large {
		return Figures{}, fmt.Errorf("the participants' time: %w", ErrTooLarge)
	}
	f := m.figures
	f.End, f.EndFrom = time.UnixMilli(m.room.Close).UTC(), FromRoomClose
	if m.room.Reconciled {
		f.EndFrom = FromReconciliation
		f.Estimated |= NoRoomClose
	}
	switch {
	case m.room.Create != 0:
		f.Start, f.StartFrom = time.UnixMilli(m.room.Create).UTC(), FromRoomCreate
	case m.first != 0:
		f.Start, f.StartFrom = time.UnixMilli(m.first).UTC(), FromLogin
	}
	if m.room.Create == 0 {
		f.Estimated |= NoRoomCreate
	}
	if !m.given {
		// The first login creates a room, so it had a user.
		f.Estimated |= NoUsage
	}
	if m.room.Contradicted {
		f.Estimated |= Contradicted
	}
	if m.room.Implausible || f.Start.After(f.End) {
		f.Estimated |= ImplausibleTime
	}
	f.Callbacks, f.StreamCallbacks = m.room.Callbacks, m.room.StreamCallbacks
	if f.Callbacks.Missing > 0 {
		f.Estimated |= MissingCallbacks
	}
	if f.StreamCallbacks.Missing > 0 {
		f.PublishedEstimated |= MissingCallbacks
	}
	if m.excluded > maxExcluded {
		f.Excluded += fmt.Sprintf(", and %d more", m.excluded-maxExcluded)
	}
	f.PublishedSeconds = f.Published / 1000
	f.Seconds = f.Millis / 1000
	f.Minutes = f.Seconds / 60
	if f.Seconds%60 != 0 {
		f.Minutes++
	}
	return f, nil
}
