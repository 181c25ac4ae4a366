package load

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/zego"
)

// longestLife bounds the life of a room, in the time of its callbacks.
const longestLife = 2 * time.Hour

// callback is a callback about a session's life: a room_create, a room_login or a
// room_logout.
type callback struct {
	event        zego.Event
	withheld     bool // never sent
	due          time.Duration
	body         []byte
	acknowledged bool
	cut          bool // the run was stopped before all attempts
	attempts     int
	copies       int
}

// life makes up the events of a session before its room_close, and so the content of its
// bill. They depend only on the seed and the session, and not on anything else that is
// sent.
func (r *runner) life(s *session) []*callback {
	if r.Participants == 0 {
		return nil
	}
	random := rand.New(rand.NewPCG(r.Seed, s.RoomSessionID))
	end := s.RoomCloseTime
	lasted := time.Minute + rand64(random, longestLife-time.Minute)
	begin := end.Add(-lasted)
	moment := func(from, to time.Time) time.Time { return from.Add(rand64(random, to.Sub(from))) }

	var all []*callback
	add := func(event zego.Event) {
		c := &callback{event: event, withheld: random.Float64() < r.Missing}
		c.due = s.due + duration(random.Float64()*float64(r.Spread))
		all = append(all, c)
	}
	common := func(event string) zego.Common { return zego.Common{Event: event, AppID: s.AppID} }
	add(&zego.RoomCreate{Common: common(zego.EventRoomCreate), RoomID: s.RoomID, RoomSessionID: s.RoomSessionID, RoomCreateTime: begin})
	var logouts []zego.Event
	stay := func(user string, role zego.Code, from, to time.Time) {
		login := zego.RoomLogin{Common: common(zego.EventRoomLogin), RoomID: s.RoomID, RoomSessionID: s.RoomSessionID, UserAccount: user,
			SessionID: strconv.FormatUint(random.Uint64()>>1, 10), LoginTime: from, UserRole: role}
		add(&login)
		logout := &zego.RoomLogout{RoomLogin: login, LogoutTime: to}
		logout.Common = common(zego.EventRoomLogout)
		logouts = append(logouts, logout)
	}
	for n := range r.Participants {
		user := fmt.Sprint("user-", n+1)
		from := begin // the first user creates the room
		if n > 0 {
			from = moment(begin, end)
		}
		to := moment(from, end)
		stay(user, "1", from, to)
		if random.IntN(3) == 0 { // comes back, or is in the room twice
			from = moment(from, end)
			stay(user, "1", from, moment(from, end))
		}
	}
	if random.IntN(5) == 0 {
		stay("recorder", zego.RoleService, begin, end)
	}
	for _, logout := range logouts {
		add(logout)
	}
	return all
}

// rand64 returns a random duration below most, in whole milliseconds like ZEGO's times.
func rand64(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Int64N(max(most.Milliseconds(), 1))) * time.Millisecond
}

// offerLife queues the deliveries of a session's life.
func (r *runner) offerLife(s *session) {
	random := rand.New(rand.NewPCG(r.Seed^1, s.RoomSessionID))
	s.life = r.life(s)
	for _, c := range s.life {
		copied, later := random.Float64() < r.Duplicates, duration(random.Float64()*float64(r.Spread))
		if c.withheld {
			r.report.Events.Withheld++
			continue
		}
		r.report.Events.Callbacks++
		s.open++
		r.enqueue(&delivery{session: s, kind: event, callback: c, due: c.due})
		if copied {
			s.open++
			r.enqueue(&delivery{session: s, kind: eventAgain, callback: c, due: c.due + later})
		}
	}
}

// sign makes the callback's body.
func (c *callback) sign(secret string) {
	head := c.event.Head()
	head.Timestamp, head.Nonce = time.Now().Unix(), strconv.FormatUint(rand.Uint64()>>1, 10)
	head.Signature = zego.Sign(secret, head.Timestamp, head.Nonce)
	// Every callback can be encoded.
	c.body, _ = c.event.(interface{ MarshalJSON() ([]byte, error) }).MarshalJSON()
}

// settleEvent processes the result of an attempt about a session's life.
func (r *runner) settleEvent(a result) (note string) {
	d, c, u := a.delivery, a.delivery.callback, r.report.Events
	u.Attempts++
	if a.ok() {
		count(u.Answers, a.kind)
		r.events.add(a.ended - d.due)
		c.acknowledged = true
	} else {
		count(u.Failures, a.kind)
	}
	if d.kind == event && !a.ok() && d.attempt <= len(r.Ladder) {
		pause := r.Ladder[d.attempt-1]
		d.due = a.ended + pause
		r.enqueue(d)
		return fmt.Sprintf("; again in %v", pause)
	}
	r.over(d, false)
	return ""
}

// decideLife counts the outcomes of a session's life at the end, and adds them to the
// journal.
func (r *runner) decideLife(s *session) (entries []audit.Callback) {
	u := r.report.Events
	for _, c := range s.life {
		t := audit.Callback{Event: c.event.Head().Event, Withheld: c.withheld, Acknowledged: c.acknowledged, Undecided: !c.acknowledged && c.cut, Attempts: c.attempts, Duplicates: c.copies}
		switch e := c.event.(type) {
		case *zego.RoomCreate:
			t.RoomCreateTime = e.RoomCreateTime
		case *zego.RoomLogin:
			t.Stay, t.User, t.Role, t.LoginTime = e.SessionID, e.UserAccount, e.UserRole, e.LoginTime
		case *zego.RoomLogout:
			t.Stay, t.User, t.Role, t.LoginTime, t.LogoutTime = e.SessionID, e.UserAccount, e.UserRole, e.LoginTime, e.LogoutTime
		}
		entries = append(entries, t)
		switch {
		case c.withheld:
		case c.acknowledged:
			u.Acknowledged++
		case c.cut:
			u.Undecided++
		default:
			u.Lost++
		}
	}
	return entries
}

// Events holds the outcomes of the callbacks about sessions' lives. At the end of a run,
//
//	Callbacks = Acknowledged + Lost + Undecided
type Events struct {
	// Callbacks counts the callbacks to send, and Withheld those that are never sent.
	Callbacks int64 `json:"callbacks"`
	Withheld  int64 `json:"withheld"`
	// Acknowledged counts the callbacks that got a 2xx, Lost those that ZEGO would drop,
	// and Undecided those that were open when the run was stopped.
	Acknowledged int64 `json:"acknowledged"`
	Lost         int64 `json:"lost"`
	Undecided    int64 `json:"undecided"`
	// Attempts, Answers and Failures are as in [Report], including copies.
	Attempts int64            `json:"attempts"`
	Answers  map[string]int64 `json:"answers"`
	Failures map[string]int64 `json:"failures"`
	// Latency covers the attempts that got a 2xx.
	Latency Percentiles `json:"latency"`
}

// describe identifies the callback in a line.
func (c *callback) describe() string {
	switch e := c.event.(type) {
	case *zego.RoomLogin:
		return e.Event + " of " + e.UserAccount
	case *zego.RoomLogout:
		return e.Event + " of " + e.UserAccount
	}
	return c.event.Head().Event
}
