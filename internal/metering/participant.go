package metering

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// User is what the ledger has of a user.
type User struct {
	// Account is the user_account.
	Account string
	Stays   []Stay
	Streams []Stream
}

// Stay is one stay of a user, from a login to the logout.
type Stay struct {
	// ID is ZEGO's session_id.
	ID string
	// Name is the user_nickname; empty if it isn't known.
	Name string
	// Role is the user_role, empty if it isn't known.
	Role zego.Code
	// Login and Logout are its ends in Unix milliseconds; 0 if not known.
	Login, Logout int64
	// Contradicted says that two callbacks told another thing of it.
	Contradicted bool
	// Implausible reports that a callback told a time of it that can't be.
	Implausible bool
}

// Stream is what a user published, from its creation to its close.
type Stream struct {
	// SID is ZEGO's stream_sid, and ID the stream's name.
	SID, ID string
	// Create and Close are its ends in Unix milliseconds; 0 if not known.
	Create, Close int64
	// Contradicted reports that two callbacks differ about it.
	Contradicted bool
	// Implausible reports that a callback has a time of it that can't be.
	Implausible bool
}

const (
	// before is how much earlier than its user's login a stream may begin, and after how
	// much later than the logout it may end, in milliseconds, without another stay: a
	// lost heartbeat is noticed after 100 s, and ZEGO's servers have different clocks.
	before = 5 * 1000
	after  = 2 * 60 * 1000
)

// unbounded is later than any time.
const unbounded = 1<<63 - 1

// An interval is a time in Unix milliseconds.
type interval struct{ from, to int64 }

// length returns the length of the union of intervals, which it sorts.
func length(all []interval) (sum int64) {
	slices.SortFunc(all, func(a, b interval) int { return cmp.Compare(a.from, b.from) })
	until := int64(0)
	for _, i := range all {
		if from := max(i.from, until); i.to > from {
			sum, until = sum+i.to-from, i.to
		}
	}
	return sum
}

// ends are the bounds of the two ends of a stay or a stream. 0 and unbounded are unknown.
type ends struct{ first, last interval }

// certain returns what is between the ends, wherever they are in their bounds.
func (e ends) certain() interval { return interval{e.first.to, e.last.from} }

// possible returns what may be between the ends.
func (e ends) possible() interval { return interval{e.first.from, e.last.to} }

// end returns an end for users: the time that was stated or, where it is 0, that counts.
func end(stated, counts int64, bounds interval) session.End {
	e := session.End{Certainty: session.Stated, Time: moment(cmp.Or(stated, counts)), Earliest: moment(bounds.from), Latest: moment(bounds.to)}
	switch {
	case bounds.from == 0 || bounds.to == unbounded:
		e.Certainty = session.Missing
	case bounds.from != bounds.to:
		e.Certainty = session.Bounded
	}
	return e
}

func moment(ms int64) time.Time {
	if ms == 0 || ms == unbounded {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// latest returns the latest time at which anything can have ended in the room.
func (m *Meter) latest() int64 {
	if m.room.Reconciled {
		return unbounded // nobody stated when the room ended
	}
	return m.room.Close
}

// stay returns the bounds of a stay, what counts of it, and why that may not be exact.
func (m *Meter) stay(s Stay) (e ends, counts interval, why Reasons) {
	e = ends{interval{s.Login, s.Login}, interval{s.Logout, s.Logout}}
	counts = interval{max(s.Login, m.room.Create), min(cmp.Or(s.Logout, m.room.Close), m.room.Close)}
	room := interval{m.room.Create, m.latest()}
	switch {
	case s.Login == 0:
		why |= NoLogin
		e.first = interval{m.room.Create, cmp.Or(s.Logout, room.to)}
		if s.Logout == 0 {
			e.last = room
		}
		if m.room.Create == 0 {
			counts.from = counts.to // nobody knows
		}
	case s.Logout == 0:
		why |= NoLogout
		e.last = interval{s.Login, max(s.Login, room.to)}
	case s.Logout < s.Login:
		why |= LogoutBeforeLogin
		e = ends{room, room}
	}
	if s.Contradicted {
		why |= Contradicted
		// A later login with the same session_id may lack its logout.
		known := interval{e.first.from, max(e.last.to, room.to)}
		e = ends{known, known}
	}
	if s.Implausible {
		why |= ImplausibleTime
		e = ends{room, room}
	}
	if s.Login > m.room.Close || s.Logout != 0 && s.Logout < m.room.Create {
		why |= OutsideRoom
	}
	if s.Logout > m.room.Close+late {
		why |= ImplausibleTime // one of the two is wrong
	}
	return e, counts, why
}

// stream returns the bounds of a stream, what counts of it, and why that may not be exact.
// to is the latest time at which it can have ended.
func (m *Meter) stream(s Stream, to int64) (e ends, counts interval, why Reasons) {
	e = ends{interval{s.Create, s.Create}, interval{s.Close, s.Close}}
	room := interval{m.room.Create, m.latest()}
	if s.Create == 0 {
		why |= NoStreamCreate
		e.first = interval{m.room.Create, cmp.Or(s.Close, room.to)}
	}
	if s.Close == 0 {
		why |= NoStreamClose
		e.last = interval{s.Create, max(s.Create, to)}
	}
	counts = interval{max(e.first.from, m.room.Create), min(e.last.to, m.room.Close)}
	if e.first.from == 0 {
		counts.from = counts.to // nobody knows
	}
	if s.Contradicted || s.Close != 0 && s.Close < s.Create {
		why |= Contradicted
		known := interval{e.first.from, max(e.last.to, room.to)}
		if e = (ends{known, known}); s.Close != 0 && s.Close < s.Create {
			e = ends{room, room}
		}
	}
	if s.Implausible {
		why |= ImplausibleTime
		e = ends{room, room}
	}
	if s.Create > m.room.Close || s.Close != 0 && s.Close < m.room.Create {
		why |= OutsideRoom
	}
	return e, counts, why
}

// A lengths sums up what is between ends that may overlap.
type lengths struct {
	counts, certain, possible []interval
	unbounded                 bool
	why                       Reasons
}

func (l *lengths) reset() {
	*l = lengths{counts: l.counts[:0], certain: l.certain[:0], possible: l.possible[:0]}
}

func (l *lengths) add(room Room, latest int64, e ends, counts interval, why Reasons) {
	within := func(i interval) interval { return interval{max(i.from, room.Create), min(i.to, latest)} }
	certain, possible := within(e.certain()), e.possible()
	if !room.Contradicted && !room.Implausible && why&OutsideRoom == 0 { // the room's ends are beyond doubt
		possible = within(possible)
	}
	l.counts, l.certain = append(l.counts, counts, certain), append(l.certain, certain)
	l.possible = append(l.possible, possible)
	l.unbounded = l.unbounded || possible.from == 0 || possible.to == unbounded
	l.why |= why
}

// span returns the length of the union of all that was added.
func (l *lengths) span(room Room) session.Span {
	s := session.Span{Millis: length(l.counts), Min: length(l.certain), Max: -1}
	if !l.unbounded {
		s.Max = max(length(l.possible), s.Millis)
	}
	if s.Min == s.Max {
		return s // whatever is missing
	}
	why := l.why
	if room.Contradicted {
		why |= Contradicted
	}
	if room.Implausible {
		why |= ImplausibleTime
	}
	s.Reasons = why.Names()
	return s
}

// A presence is a stay with its bounds.
type presence struct {
	ends
	*Stay
	counts interval
}

// holder returns the only stay that a moment may be in; nil if there are several, or if
// there is none. The stays are in the order of their possible beginnings.
func holder(stays []presence, t int64) (only *presence, none bool) {
	n := sort.Search(len(stays), func(i int) bool { return stays[i].first.from-before > t })
	for i := n - 1; i >= 0; i-- {
		if stays[i].last.to != unbounded && stays[i].last.to+after < t {
			continue
		}
		if only != nil {
			return nil, false
		}
		only = &stays[i]
	}
	return only, only == nil
}

// narrow narrows the stay's missing ends by a moment at which its user was there.
func (p *presence) narrow(t int64) {
	t = min(max(t, p.first.from), p.last.to)
	if p.Login == 0 {
		p.first.to = min(p.first.to, t)
	}
	if p.Logout == 0 {
		p.last.from = max(p.last.from, t)
	}
}

// measure computes a user's figures. known are the reasons that hold for a bill even if
// the user is no participant.
func (m *Meter) measure(u User) (p session.Participant, known, inRoom, published Reasons) {
	p = m.describe(u)
	slices.SortFunc(u.Streams, func(a, b Stream) int {
		return cmp.Or(cmp.Compare(a.Create, b.Create), cmp.Compare(a.Close, b.Close), cmp.Compare(a.SID, b.SID))
	})
	l, latest := &m.lengths, m.latest()
	stays := make([]presence, len(u.Stays))
	for i := range u.Stays {
		s := &u.Stays[i]
		e, counts, why := m.stay(*s)
		stays[i] = presence{e, s, counts}
		inRoom |= why
		known |= why & Contradicted
		if s.Implausible {
			known |= ImplausibleTime
		}
	}
	slices.SortStableFunc(stays, func(a, b presence) int { return cmp.Compare(a.first.from, b.first.from) })

	var without []presence // stays without a callback
	l.reset()
	for _, s := range u.Streams {
		believed := !s.Contradicted && !s.Implausible && (s.Close == 0 || s.Close >= s.Create)
		alone := false
		for _, t := range []int64{s.Create, s.Close} {
			if t == 0 || !believed {
				continue
			}
			only, none := holder(stays, t)
			if only != nil {
				only.narrow(t)
			}
			alone = alone || none
		}
		to := latest
		if s.Close == 0 && !alone && len(stays) > 0 {
			to = 0
			for _, at := range stays {
				if at.first.from-before <= s.Create {
					to = max(to, at.last.to)
				}
			}
		}
		e, counts, why := m.stream(s, to)
		l.add(m.room, latest, e, counts, why)
		p.Streams = append(p.Streams, session.Stream{StreamSID: s.SID, StreamID: s.ID, Create: end(s.Create, counts.from, e.first), Close: end(s.Close, counts.to, e.last)})
		if alone || len(stays) == 0 {
			sure := interval{cmp.Or(s.Create, s.Close), cmp.Or(s.Close, s.Create)}
			if !believed {
				sure = interval{}
			}
			without = append(without, presence{ends{interval{m.room.Create, cmp.Or(sure.from, latest)}, interval{cmp.Or(sure.to, m.room.Create), latest}}, &Stay{}, sure})
		}
	}
	if p.Published, published = l.span(m.room), l.why; !m.room.Streams {
		p.Published = session.Span{Max: -1, Reasons: NoStreams.Names()} // they may not be enabled
	}

	l.reset()
	for _, s := range stays {
		l.add(m.room, latest, s.ends, s.counts, inRoom)
	}
	for _, s := range without {
		inRoom |= NoStay
		l.add(m.room, latest, s.ends, interval{max(s.counts.from, m.room.Create), min(s.counts.to, m.room.Close)}, NoStay)
	}
	p.InRoom = l.span(m.room)
	for _, s := range slices.Concat(stays, without) {
		p.Stays = append(p.Stays, session.Stay{SessionID: s.ID, Login: end(s.Login, s.counts.from, s.first), Logout: end(s.Logout, s.counts.to, s.last)})
	}
	slices.SortStableFunc(p.Stays, func(a, b session.Stay) int { return a.Login.Time.Compare(b.Login.Time) })
	return p, known, inRoom, published
}

// describe returns who a user is, without figures.
func (m *Meter) describe(u User) session.Participant {
	p := session.Participant{User: u.Account}
	var at int64
	for _, s := range u.Stays {
		if s.Name != "" && !slices.Contains(p.Names, s.Name) {
			p.Names = append(p.Names, s.Name)
		}
		// A recorder never has another role; a person whose last role is known has that one.
		if s.Role != "" && (p.Role == "" || p.Role == zego.RoleService || s.Role != zego.RoleService && s.Login >= at) {
			p.Role, at = s.Role, s.Login
		}
	}
	slices.Sort(p.Names)
	return p
}
