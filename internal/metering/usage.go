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

// Room is what is known of a session's room, in Unix milliseconds by ZEGO's clock.
type Room struct {
	// Create is when it was created; 0 if no room_create came.
	Create int64
	// Close is when it was destroyed or, if no room_close came, the best that is
	// known of it: at least the last time that its stays have.
	Close int64
	// Reconciled says that no room_close came.
	Reconciled bool
	// Contradicted says that two callbacks told another thing of it.
	Contradicted bool
	// Implausible reports that a callback told a time of it that can't be.
	Implausible bool
	// Callbacks and StreamCallbacks are whether callbacks are missing.
	Callbacks, StreamCallbacks session.Completeness
	// Streams reports whether there was a callback of any stream.
	Streams bool
	// Roles reports whether a user has a role of the LiveRoom SDK that isn't
	// [zego.RoleService].
	Roles bool
	// RolesUnclear reports that a user with that role who counts may be no participant.
	RolesUnclear bool
}

// Times are those of all of a session's stays, in Unix milliseconds; 0 if there is none.
type Times struct {
	// FirstLogin is the earliest login, Last the latest login or logout, and LastLogout
	// the latest logout.
	FirstLogin, Last, LastLogout int64
}

// Plausible returns the room with the end that its stays make plausible. doubt isn't empty
// if the room closed before it began, and no logout says when.
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

// late is for how long after a room's end, in milliseconds, a logout may come: ZEGO's
// machines tell their own time.
const late = 5 * 60 * 1000

// Source is where an end of a room's life was learned.
type Source string

// The sources.
const (
	// FromRoomCreate and FromRoomClose are the callbacks that tell it.
	FromRoomCreate Source = "room_create"
	FromRoomClose  Source = "room_close"
	// FromLogin means that no room_create came: it is the first login.
	FromLogin Source = "room_login"
	// FromReconciliation means that no room_close came, and that the room was found
	// gone.
	FromReconciliation Source = "reconciliation"
)

// Figures are what a session is billed by. They can be compared by ==.
type Figures struct {
	// Start and End are the room's life, in UTC. Start is zero if nothing is known.
	Start time.Time `json:"start,omitzero"`
	End   time.Time `json:"end"`
	// StartFrom and EndFrom say where they were learned.
	StartFrom Source `json:"start_from,omitempty"`
	EndFrom   Source `json:"end_from"`
	// Participants is how many users there were, and Stays how many stays they had.
	Participants int64 `json:"participants"`
	Stays        int64 `json:"stays"`
	// Millis is the participants' time in milliseconds: of each the time in the room,
	// where stays that overlap count once.
	Millis int64 `json:"participant_milliseconds"`
	// Seconds is Millis in whole seconds, rounded down.
	Seconds int64 `json:"participant_seconds"`
	// Minutes is Seconds in minutes, rounded up.
	Minutes int64 `json:"participant_minutes"`
	// Estimated says why they may not be the truth; empty if they are.
	Estimated Reasons `json:"estimated"`
	// Published is how long the participants published, in milliseconds: of each, streams
	// that overlap count once. PublishedSeconds is Published in whole seconds.
	Published        int64 `json:"published_milliseconds"`
	PublishedSeconds int64 `json:"published_seconds"`
	// PublishedEstimated lists why these may not be exact.
	PublishedEstimated Reasons `json:"published_estimated"`
	// Callbacks is whether callbacks of logins and logouts are missing, and StreamCallbacks
	// whether those of streams are.
	Callbacks       session.Completeness `json:"callbacks"`
	StreamCallbacks session.Completeness `json:"stream_callbacks"`
	// Excluded lists who is no participant, and why.
	Excluded string `json:"excluded,omitempty"`
}

// Usage returns the figures as other programs have them.
func (f Figures) Usage() session.Usage {
	return session.Usage{
		Start: f.Start, End: f.End, StartFrom: string(f.StartFrom), EndFrom: string(f.EndFrom),
		Participants: f.Participants, Stays: f.Stays,
		Millis: f.Millis, Seconds: f.Seconds, Minutes: f.Minutes, Estimated: f.Estimated.Names(),
		Published: f.Published, PublishedSeconds: f.PublishedSeconds, PublishedEstimated: f.PublishedEstimated.Names(),
		Callbacks: f.Callbacks, StreamCallbacks: f.StreamCallbacks, Excluded: f.Excluded,
	}
}

// ErrTooLarge means that a sum is beyond 63 bits.
var ErrTooLarge = errors.New("more than 63 bits can hold")

// Meter computes the figures of a session. Its users are added one by one, so that
// there may be any number of them.
type Meter struct {
	room     Room
	figures  Figures
	first    int64 // the earliest login
	given    bool  // whether there was a stay of anybody
	large    bool
	excluded int // how many users
	lengths  lengths
}

// NewMeter makes a meter of a session's users.
func NewMeter(room Room) *Meter {
	return &Meter{room: room}
}

// Add adds a user with all stays and streams, which it sorts, and returns what it counts
// of them. exclude, if set, returns why the user is no participant; empty if it is one.
func (m *Meter) Add(u User, exclude Exclude) session.Participant {
	p, known, inRoom, published := m.measure(u)
	if exclude != nil {
		p.Excluded = exclude(p)
	}
	for _, s := range u.Stays {
		m.given = true
		// The recorder's login also shows that the room was there.
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

// maxExcluded is how many of the users who are no participants are listed by name.
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

// Figures are those of all stays that were added. The error is [ErrTooLarge].
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
		// A room is created by its first user's login, so there was somebody.
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
