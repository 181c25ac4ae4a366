package ledger_test

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

var (
	firstRoom = flag.Uint64("room", 0, "the first generated room")
	rooms     = flag.Uint64("rooms", 120, "how many rooms to generate")
)

// A happening is a login, a logout, or the start or end of a stream in a generated room, with the
// callback that reports it.
type happening struct {
	at   int64
	user string
	// nth identifies the stay or stream. Its start and its end have the same nth.
	nth int
	// ends reports whether it is a logout or a stream's close. begin is the time of the matching
	// start.
	ends   bool
	begin  int64
	id     string
	stream bool
	role   zego.Code
	number int64 // of the callback; -1 if it has none
	lost   bool  // until after the bill
}

// A truth is a generated room: what really happened in it, which the ledger can't see, and the
// callbacks that report it.
type truth struct {
	create, close    int64
	createLost       bool
	all              []*happening
	inRoom, streamed map[string][][2]int64
	// doubtful has the users with contradicting callbacks.
	doubtful map[string]bool
	events   []ledger.Event
	late     []ledger.Event
}

const begin = 1_499_676_000_000

// generate returns the room generated from a seed.
func generate(seed uint64) *truth {
	r := rand.New(rand.NewPCG(seed, 23))
	chance := func(percent int) bool { return r.IntN(100) < percent }
	unit := []int64{1, 1000, 20_000}[r.IntN(3)] // coarse units make times coincide
	within := func(from, to int64) int64 { return from + r.Int64N((to-from)/unit+1)*unit }
	t := &truth{create: begin, inRoom: map[string][][2]int64{}, streamed: map[string][][2]int64{}, doubtful: map[string]bool{}}
	t.close = within(begin+120_000, begin+3_600_000)
	t.createLost = chance(10)

	id := 0
	pair := func(user string, role zego.Code, stream bool, name string, from, to int64) {
		nth := len(t.all)
		t.all = append(t.all, &happening{at: from, user: user, id: name, nth: nth, stream: stream, role: role},
			&happening{at: to, user: user, id: name, nth: nth, stream: stream, role: role, ends: true, begin: from})
		if stream {
			t.streamed[user] = append(t.streamed[user], [2]int64{from, to})
		} else {
			t.inRoom[user] = append(t.inRoom[user], [2]int64{from, to})
		}
	}
	again := chance(20) // whether IDs are reused
	users := []string{"ada", "Bo", "çelik", "日", "z"}[:1+r.IntN(5)]
	for _, user := range users {
		from, name := int64(begin), ""
		for range 1 + r.IntN(3) {
			login := within(from, t.close)
			logout := within(login, t.close)
			if id++; name == "" || !again || !chance(50) {
				name = fmt.Sprint(id)
			} else {
				t.doubtful[user] = true // a relogin with the same session_id
			}
			pair(user, "1", false, name, login, logout)
			if again && chance(30) { // a relogin without a logout
				t.all = append(t.all, &happening{at: within(login, logout), user: user, id: name, nth: len(t.all), role: "1"})
				t.doubtful[user] = true
			}
			stream := ""
			for range r.IntN(3) {
				create := within(login, logout)
				if id++; stream == "" || !again || !chance(50) {
					stream = fmt.Sprint("s", id)
				} else {
					t.doubtful[user] = true
				}
				pair(user, "", true, stream, create, within(create, logout))
			}
			if from = logout; chance(40) {
				from = login // a second device
			}
		}
	}
	recorder := chance(30)
	if recorder {
		pair("recorder", "4", false, "r", begin, t.close)
	}
	slices.SortStableFunc(t.all, func(a, b *happening) int { return cmp.Compare(a.at, b.at) })

	counted := chance(50) // whether recorders' callbacks are numbered with the others
	number := [2]int64{r.Int64N(3), r.Int64N(3)}
	for _, h := range t.all {
		n := &number[b2i(h.stream)]
		if h.role == "4" && !counted {
			h.number = []int64{-1, max(*n-1, 0)}[r.IntN(2)]
			continue
		}
		h.number = *n
		*n++
	}
	if without := r.IntN(10); without < 3 { // one kind of callback, or some of both, without numbers
		for _, h := range t.all {
			if without < 2 && h.stream == (without == 1) || without == 2 && chance(20) {
				h.number = -1
			}
		}
	}

	loss := []int{0, 0, 5, 15, 40}[r.IntN(5)]
	for _, h := range t.all {
		h.lost = chance(loss)
		u := t.callback(h)
		if h.lost {
			t.late = append(t.late, u)
			continue
		}
		for range 1 + r.IntN(2) {
			t.events = append(t.events, u)
		}
		if again && chance(10) { // a repeated callback states another time
			lie := u
			if h.ends {
				lie.Logout = ms(within(h.begin, t.close))
			} else {
				lie.Login = ms(within(begin, t.close))
			}
			if t.events = append(t.events, lie); lie != u {
				t.doubtful[h.user] = true
			}
		}
	}
	create := ledger.Event{ID: session.ID{AppID: app}, RoomID: "Zimmer 7", Event: zego.EventRoomCreate, Create: ms(t.create)}
	if t.createLost {
		t.late = append(t.late, create)
	} else {
		t.events = append(t.events, create)
	}
	return t
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// numbered reports whether each callback that has arrived has a number, and repeated callbacks
// about one end have the same number. It ignores recorders.
func (t *truth) numbered(stream bool) bool {
	type end struct {
		id   string
		ends bool
	}
	of := map[end]int64{}
	for _, h := range t.all {
		if h.stream != stream || h.lost || h.role == "4" {
			continue
		}
		e := end{h.id, h.ends}
		if n, ok := of[e]; h.number < 0 || ok && n != h.number {
			return false
		}
		of[e] = h.number
	}
	return true
}

// callback returns the callback that ZEGO sends for h.
func (t *truth) callback(h *happening) ledger.Event {
	u := ledger.Event{ID: session.ID{AppID: app}, RoomID: "Zimmer 7", Stay: h.id, User: h.user, Role: h.role, Number: h.number + 1, Login: ms(h.at)}
	u.Event = map[[2]bool]string{{false, false}: zego.EventRoomLogin, {false, true}: zego.EventRoomLogout,
		{true, false}: zego.EventStreamCreate, {true, true}: zego.EventStreamClose}[[2]bool{h.stream, h.ends}]
	if h.ends {
		u.Login, u.Logout = ms(h.begin), ms(h.at)
	}
	return u
}

// union returns how many milliseconds lie in at least one of the intervals.
func union(intervals [][2]int64) (sum int64) {
	edges := map[int64]bool{}
	for _, i := range intervals {
		edges[i[0]], edges[i[1]] = true, true
	}
	all := slices.Sorted(maps.Keys(edges))
	for i := 1; i < len(all); i++ {
		if slices.ContainsFunc(intervals, func(in [2]int64) bool { return in[0] <= all[i-1] && all[i] <= in[1] }) {
			sum += all[i] - all[i-1]
		}
	}
	return sum
}

// lacks counts the callbacks that haven't arrived, and reports whether the others prove that some
// are missing: a number is missing between two others and no other callback states its time, or a
// stay has no end.
func (t *truth) lacks(stream bool) (lost int64, proven bool) {
	first, last := int64(1<<62), int64(-1)
	ended := map[string]bool{}
	for _, h := range t.all {
		if h.stream != stream || h.lost {
			continue
		}
		if h.number >= 0 {
			first, last = min(first, h.number), max(last, h.number)
		}
		ended[h.id] = ended[h.id] || h.ends
	}
	for _, h := range t.all {
		if h.stream != stream {
			continue
		}
		if !h.lost {
			proven = proven || !ended[h.id] && h.role != "4"
			continue
		}
		lost++
		stated := slices.ContainsFunc(t.all, func(o *happening) bool {
			return o.stream == stream && o.id == h.id && o.ends && !o.lost && o.begin == h.at
		})
		proven = proven || !stated && first < h.number && h.number < last
	}
	return lost, proven
}

// vanished reports whether none of the callbacks about one of the user's stays or streams has
// arrived. Only a gap in the numbers can prove that.
func (t *truth) vanished(user string, stream bool) bool {
	left := map[int]bool{}
	for _, h := range t.all {
		if h.user == user && h.stream == stream {
			left[h.nth] = left[h.nth] || !h.lost
		}
	}
	return slices.Contains(slices.Collect(maps.Values(left)), false)
}

// check compares a user's figure with what really happened.
func (t *truth) check(user string, s session.Span, stream bool, callbacks session.Completeness) error {
	want := union(t.inRoom[user])
	if stream {
		want = union(t.streamed[user])
	}
	right := s.Min <= want && (want <= s.Max || s.Max < 0) && (!s.Exact() || s.Millis == want && s.Min == s.Max)
	_, proven := t.lacks(stream)
	switch {
	case s.Millis < s.Min || s.Max >= 0 && s.Millis > s.Max:
		return fmt.Errorf("%d ms are not between %d and %d", s.Millis, s.Min, s.Max)
	case right || callbacks.Missing > 0:
		return nil
	case (t.vanished(user, stream) || t.vanished(user, false)) && (!callbacks.Complete() || !proven):
		return nil // no number proves it, and the known stays bound streams
	}
	return fmt.Errorf("found %+v of %d ms, callbacks %v", s, want, callbacks)
}

func (t *truth) checkCompleteness(c session.Completeness, stream bool) error {
	numbered := t.numbered(stream)
	lost, proven := t.lacks(stream)
	switch {
	case c.Complete() && proven, c.Missing > lost, c.Known && !numbered, numbered && proven && c.Missing == 0:
		return fmt.Errorf("callbacks: %v, with %d lost, proven: %v", c, lost, proven)
	}
	return nil
}

func ms(t int64) time.Time { return time.UnixMilli(t).UTC() }

// recordShuffled records a session's callbacks in random order and in a few batches.
func recordShuffled(t *testing.T, l *ledger.Ledger, r *rand.Rand, life uint64, events []ledger.Event) {
	t.Helper()
	events = slices.Clone(events)
	for i := range events {
		events[i].RoomSessionID = life
	}
	r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	for len(events) > 0 {
		n := min(len(events), 1+r.IntN(2*len(events)))
		record(t, l, events[:n]...)
		events = events[n:]
	}
}

// perMillisecond is a price function that returns one line for each participant.
func perMillisecond(s pricing.Session) (lines []pricing.Line, err error) {
	for p := range s.Participants {
		lines = append(lines, pricing.Line{Payer: p.User, Description: "time", Quantity: p.InRoom.Millis, Unit: "ms", UnitPrice: 1, Amount: p.InRoom.Millis, Currency: "EUR"})
	}
	return lines, nil
}

// Each figure of a generated room is exact, or has bounds that contain the true value, or is marked
// as lacking callbacks. The figures add up to the bill in any order of arrival. Callbacks after the
// bill correct only the users they are about. To try other rooms, add -args -room 1000 -rooms 5000.
func TestFiguresAgainstAnOracle(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		l.Price, l.Rules = perMillisecond, metering.Default

		n := *rooms
		if testing.Short() { // a room takes ten times as long with the race detector
			n = min(n, 10)
		}
		for seed := *firstRoom; seed < *firstRoom+n; seed++ {
			var first []session.Participant
			for order := range uint64(2) {
				truth := generate(seed)
				life := 2*seed + order + 1
				fail := func(format string, args ...any) {
					t.Helper()
					t.Errorf("room %d: %s\nreproduce it with: go test ./internal/ledger -run %s -args -room %[1]d -rooms 1", seed, fmt.Sprintf(format, args...), "TestFiguresAgainstAnOracle")
				}
				recordShuffled(t, l, rand.New(rand.NewPCG(seed, order)), life, truth.events)
				bill := closing(life, 0)
				bill.RoomCloseTime, bill.Charge = ms(truth.close), pricing.Charge{}
				b := finalize(t, l, bill)
				people, all := participants(t, l, life, ms(truth.close), 0)
				if b.Charge.Amount != b.Usage.Millis {
					fail("the lines add up to %d, want %d", b.Charge.Amount, b.Usage.Millis)
				}
				truth.checkAll(fail, people, all, b.Usage)
				if order == 0 {
					first = all
				} else if !reflect.DeepEqual(all, first) {
					fail("in another order: %+v, want %+v", all, first)
				}
				truth.checkLate(t, l, life, all, fail)
				if t.Failed() {
					t.FailNow()
				}
			}
		}
	})
}

// checkAll compares an entry's participants and figures with what really happened.
func (t *truth) checkAll(fail func(string, ...any), people *session.Participants, all []session.Participant, usage session.Usage) {
	for stream, c := range map[bool]session.Completeness{false: people.Callbacks, true: people.StreamCallbacks} {
		if err := t.checkCompleteness(c, stream); err != nil {
			fail("streams %v: %v", stream, err)
		}
	}
	lost, _ := t.lacks(false)
	lostStreams, _ := t.lacks(true)
	whole := lost == 0 && lostStreams == 0 && !t.createLost && len(t.doubtful) == 0
	var inRoom, streamed int64
	found := map[string]bool{}
	for _, p := range all {
		found[p.User] = true
		inRoom, streamed = inRoom+p.Billed().InRoom, streamed+p.Billed().Published
		if p.User == "recorder" {
			if p.Excluded == "" && !slices.Contains(usage.Estimated.Names(), "roles_unclear") {
				fail("the recorder counts")
			}
			continue
		}
		if err := t.check(p.User, p.InRoom, false, people.Callbacks); err != nil {
			fail("%s in the room: %v", p.User, err)
		}
		if err := t.check(p.User, p.Published, true, people.StreamCallbacks); err != nil {
			fail("%s published: %v", p.User, err)
		}
		if whole && (!p.InRoom.Exact() || len(t.streamed) > 0 && !p.Published.Exact()) {
			fail("%s: %+v, %+v, of callbacks that are all there", p.User, p.InRoom, p.Published)
		}
	}
	for user := range t.inRoom {
		if _, proven := t.lacks(false); !found[user] && proven && people.Callbacks.Complete() {
			fail("%s is not found, and nothing is said to be missing", user)
		}
	}
	if inRoom != usage.Millis || streamed != usage.Published || usage.Seconds != inRoom/1000 || usage.PublishedSeconds != streamed/1000 {
		fail("participants add up to %d and %d ms, want %+v", inRoom, streamed, usage)
	}
	if whole && usage.Estimated != 0 {
		fail("estimated %v of callbacks that are all there", usage.Estimated)
	}
	if people.Callbacks != usage.Callbacks || people.StreamCallbacks != usage.StreamCallbacks {
		fail("%v and %v, want those of the bill: %+v", people.Callbacks, people.StreamCallbacks, usage)
	}
}

// checkLate records the late callbacks and checks the adjustment.
func (t *truth) checkLate(test *testing.T, l *ledger.Ledger, life uint64, billed []session.Participant, fail func(string, ...any)) {
	if len(t.late) == 0 {
		return
	}
	recordShuffled(test, l, rand.New(rand.NewPCG(life, 9)), life, t.late)
	about := map[string]bool{}
	for _, u := range t.late {
		about[u.User] = true
	}
	for _, h := range t.all {
		h.lost = false
	}
	createLost := t.createLost
	t.createLost = false
	waiting := dirty(test, l)
	if len(waiting) == 0 { // the late callbacks add nothing to the others
		return
	}
	due, err := adjust(test, l, waiting[0])
	if errors.Is(err, ledger.ErrNothingToAdjust) {
		return
	}
	if err != nil {
		test.Fatal(err)
	}
	people, all := participants(test, l, life, ms(t.close), 1)
	t.checkAll(fail, people, all, due.Usage)
	before := map[string]session.Participant{}
	for _, p := range billed {
		before[p.User] = p
	}
	for _, p := range all {
		if p.Before != before[p.User].Billed() {
			fail("%s: %+v before, want %+v", p.User, p.Before, before[p.User].Billed())
		}
		if !createLost && !about[p.User] && p.User != "recorder" && p.Billed() != p.Before {
			fail("%s is corrected by callbacks of others: %+v, want %+v", p.User, p.Billed(), p.Before)
		}
	}
	for line, err := range l.Lines(test.Context(), session.ID{AppID: app, RoomSessionID: life}, 1) {
		if err != nil || !createLost && !about[line.Payer] && line.Payer != "recorder" {
			fail("line %+v, %v", line, err)
		}
	}
}
