// Package metering computes how long the participants of a session were in its room,
// and what that costs. It does no I/O, and all times are ZEGO's.
//
// Time is counted in milliseconds, as ZEGO sends it. A session's milliseconds are
// rounded down to seconds once, those up to minutes once, and the amount is the
// minutes times the price: see [session.Usage].
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

// ErrTooLarge means that a sum exceeds 63 bits.
var ErrTooLarge = errors.New("more than 63 bits can hold")

// Meter computes the figures of a session. Users are added one by one, so that memory does
// not depend on their number.
type Meter struct {
	room     Room
	figures  session.Usage
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
		m.figures.Estimated |= session.RolesUnclear
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
func (m *Meter) Figures() (session.Usage, error) {
	if m.large {
		return session.Usage{}, fmt.Errorf("the participants' time: %w", ErrTooLarge)
	}
	f := m.figures
	f.End, f.EndFrom = time.UnixMilli(m.room.Close).UTC(), "room_close"
	if m.room.Reconciled {
		f.EndFrom = "reconciliation"
		f.Estimated |= session.NoRoomClose
	}
	switch {
	case m.room.Create != 0:
		f.Start, f.StartFrom = time.UnixMilli(m.room.Create).UTC(), "room_create"
	case m.first != 0:
		f.Start, f.StartFrom = time.UnixMilli(m.first).UTC(), "room_login"
	}
	if m.room.Create == 0 {
		f.Estimated |= session.NoRoomCreate
	}
	if !m.given {
		// The first login creates a room, so it had a user.
		f.Estimated |= session.NoUsage
	}
	if m.room.Contradicted {
		f.Estimated |= session.Contradicted
	}
	if m.room.Implausible || f.Start.After(f.End) {
		f.Estimated |= session.ImplausibleTime
	}
	f.Callbacks, f.StreamCallbacks = m.room.Callbacks, m.room.StreamCallbacks
	if f.Callbacks.Missing > 0 {
		f.Estimated |= session.MissingCallbacks
	}
	if f.StreamCallbacks.Missing > 0 {
		f.PublishedEstimated |= session.MissingCallbacks
	}
	if m.excluded > maxExcluded {
		f.Excluded += fmt.Sprintf(", and %d more", m.excluded-maxExcluded)
	}
	f.PublishedSeconds = f.Published / 1000
	f.Seconds = f.Millis / 1000
	f.Minutes = session.Minutes(f.Millis)
	return f, nil
}
