package metering

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// User holds the stays and streams of a user.
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
	// Name is the user_nickname; empty if unknown.
	Name string
	// Role is the user_role; empty if unknown.
	Role zego.Code
	// Login and Logout are in Unix milliseconds; 0 if unknown.
	Login, Logout int64
	// Contradicted reports whether two callbacks disagree about the stay.
	Contradicted bool
	// Implausible reports whether a callback states an impossible time.
	Implausible bool
}

// Stream is one published stream of a user.
type Stream struct {
	// SID is ZEGO's stream_sid, and ID the stream's name.
	SID, ID string
	// Create and Close are in Unix milliseconds; 0 if unknown.
	Create, Close int64
	// Contradicted reports whether two callbacks disagree about the stream.
	Contradicted bool
	// Implausible reports whether a callback states an impossible time.
	Implausible bool
}

const (
	// before and after are how many milliseconds a stream may begin before its user's login
	// and end after the logout. ZEGO notices a lost heartbeat after 100 s, and its servers
	// have different clocks.
	before = 5 * 1000
	after  = 2 * 60 * 1000
)

// unbounded is later than any time.
const unbounded = 1<<63 - 1

// An interval is a span of time in Unix milliseconds.
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

// ends holds the bounds of both ends of a stay or a stream. 0 and unbounded mean unknown.
type ends struct{ first, last interval }

// certain returns the time between the ends in every case.
func (e ends) certain() interval { return interval{e.first.to, e.last.from} }

// possible returns the time that may be between the ends.
func (e ends) possible() interval { return interval{e.first.from, e.last.to} }

// end returns an end for steps: the stated time or, if that is 0, the time that counts.
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

// latest returns the latest possible time of an end in the room.
func (m *Meter) latest() int64 {
	if m.room.Reconciled {
		return unbounded // nobody stated when the room ended
	}
	return m.room.Close
}

// stay returns the bounds of a stay, the time that counts, and why that may be inexact.
func (m *Meter) stay(s Stay) (e ends, counts interval, why session.Reasons) {
	e = ends{interval{s.Login, s.Login}, interval{s.Logout, s.Logout}}
	counts = interval{max(s.Login, m.room.Create), min(cmp.Or(s.Logout, m.room.Close), m.room.Close)}
	room := interval{m.room.Create, m.latest()}
	switch {
	case s.Login == 0:
		why |= session.NoLogin
		e.first = interval{m.room.Create, cmp.Or(s.Logout, room.to)}
		if s.Logout == 0 {
			e.last = room
		}
		if m.room.Create == 0 {
			counts.from = counts.to // unknown
		}
	case s.Logout == 0:
		why |= session.NoLogout
		e.last = interval{s.Login, max(s.Login, room.to)}
	case s.Logout < s.Login:
		why |= session.LogoutBeforeLogin
		e = ends{room, room}
	}
	if s.Contradicted {
		why |= session.Contradicted
		// A later login with the same session_id may lack its logout.
		known := interval{e.first.from, max(e.last.to, room.to)}
		e = ends{known, known}
	}
	if s.Implausible {
		why |= session.ImplausibleTime
		e = ends{room, room}
	}
	if s.Login > m.room.Close || s.Logout != 0 && s.Logout < m.room.Create {
		why |= session.OutsideRoom
	}
	if s.Logout > m.room.Close+late {
		why |= session.ImplausibleTime // one of the two is wrong
	}
	return e, counts, why
}

// stream returns the bounds of a stream, the time that counts, and why that may be inexact.
// to is its latest possible end.
func (m *Meter) stream(s Stream, to int64) (e ends, counts interval, why session.Reasons) {
	e = ends{interval{s.Create, s.Create}, interval{s.Close, s.Close}}
	room := interval{m.room.Create, m.latest()}
	if s.Create == 0 {
		why |= session.NoStreamCreate
		e.first = interval{m.room.Create, cmp.Or(s.Close, room.to)}
	}
	if s.Close == 0 {
		why |= session.NoStreamClose
		e.last = interval{s.Create, max(s.Create, to)}
	}
	counts = interval{max(e.first.from, m.room.Create), min(e.last.to, m.room.Close)}
	if e.first.from == 0 {
		counts.from = counts.to // unknown
	}
	if s.Contradicted || s.Close != 0 && s.Close < s.Create {
		why |= session.Contradicted
		known := interval{e.first.from, max(e.last.to, room.to)}
		if e = (ends{known, known}); s.Close != 0 && s.Close < s.Create {
			e = ends{room, room}
		}
	}
	if s.Implausible {
		why |= session.ImplausibleTime
		e = ends{room, room}
	}
	if s.Create > m.room.Close || s.Close != 0 && s.Close < m.room.Create {
		why |= session.OutsideRoom
	}
	return e, counts, why
}

// lengths sums up times that may overlap.
type lengths struct {
	counts, certain, possible []interval
	unbounded                 bool
	why                       session.Reasons
}

func (l *lengths) reset() {
	*l = lengths{counts: l.counts[:0], certain: l.certain[:0], possible: l.possible[:0]}
}

func (l *lengths) add(room Room, latest int64, e ends, counts interval, why session.Reasons) {
	within := func(i interval) interval { return interval{max(i.from, room.Create), min(i.to, latest)} }
	certain, possible := within(e.certain()), e.possible()
	if !room.Contradicted && !room.Implausible && why&session.OutsideRoom == 0 { // the room's ends are beyond doubt
		possible = within(possible)
	}
	l.counts, l.certain = append(l.counts, counts, certain), append(l.certain, certain)
	l.possible = append(l.possible, possible)
	l.unbounded = l.unbounded || possible.from == 0 || possible.to == unbounded
	l.why |= why
}

// span returns the length of the union of the added times.
func (l *lengths) span(room Room) session.Span {
	s := session.Span{Millis: length(l.counts), Min: length(l.certain), Max: -1}
	if !l.unbounded {
		s.Max = max(length(l.possible), s.Millis)
	}
	if s.Min == s.Max {
		return s // exact despite missing callbacks
	}
	s.Reasons = l.why
	if room.Contradicted {
		s.Reasons |= session.Contradicted
	}
	if room.Implausible {
		s.Reasons |= session.ImplausibleTime
	}
	return s
}

// A presence is a stay with its bounds.
type presence struct {
	ends
	*Stay
	counts interval
}

// holder returns the only stay that may include the time t. It returns nil if there are
// several or none. The stays are ordered by their earliest possible login.
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

// narrow narrows the stay's missing ends by a time at which its user was in the room.
func (p *presence) narrow(t int64) {
	t = min(max(t, p.first.from), p.last.to)
	if p.Login == 0 {
		p.first.to = min(p.first.to, t)
	}
	if p.Logout == 0 {
		p.last.from = max(p.last.from, t)
	}
}

// measure computes a user's figures. The reasons in known apply to the bill even if the user
// is not a participant.
func (m *Meter) measure(u User) (p session.Participant, known, inRoom, published session.Reasons) {
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
		known |= why & session.Contradicted
		if s.Implausible {
			known |= session.ImplausibleTime
		}
	}
	slices.SortStableFunc(stays, func(a, b presence) int { return cmp.Compare(a.first.from, b.first.from) })

	var without []presence // stays that only streams show
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
		p.Published = session.Span{Max: -1, Reasons: session.NoStreams} // they may not be enabled
	}

	l.reset()
	for _, s := range stays {
		l.add(m.room, latest, s.ends, s.counts, inRoom)
	}
	for _, s := range without {
		inRoom |= session.NoStay
		l.add(m.room, latest, s.ends, interval{max(s.counts.from, m.room.Create), min(s.counts.to, m.room.Close)}, session.NoStay)
	}
	p.InRoom = l.span(m.room)
	for _, s := range slices.Concat(stays, without) {
		p.Stays = append(p.Stays, session.Stay{SessionID: s.ID, Login: end(s.Login, s.counts.from, s.first), Logout: end(s.Logout, s.counts.to, s.last)})
	}
	slices.SortStableFunc(p.Stays, func(a, b session.Stay) int { return a.Login.Time.Compare(b.Login.Time) })
	return p, known, inRoom, published
}

// describe returns a user without figures.
func (m *Meter) describe(u User) session.Participant {
	p := session.Participant{User: u.Account}
	var at int64
	for _, s := range u.Stays {
		if s.Name != "" && !slices.Contains(p.Names, s.Name) {
			p.Names = append(p.Names, s.Name)
		}
		// A recorder never has another role. Of a person's roles, the last one counts.
		if s.Role != "" && (p.Role == "" || p.Role == zego.RoleService || s.Role != zego.RoleService && s.Login >= at) {
			p.Role, at = s.Role, s.Login
		}
	}
	slices.Sort(p.Names)
	return p
}
