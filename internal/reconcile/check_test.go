package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/testsuite"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
	"github.com/closeouthq/closeout/zego/serverapi"
)

const (
	overdueAfter = 10 * time.Minute
	gap          = time.Minute
)

// world is a ledger, a fake of ZEGO, the started sessions, and a clock that the test advances.
type world struct {
	*reconcile.Reconciler
	t   *testing.T
	api *zegofake.API

	mu      sync.Mutex
	now     time.Time
	started map[uint64]session.Session
	refuse  error // returned by every start
}

// newWorld returns a world in which app 1 has a server secret.
func newWorld(t *testing.T, databaseURL string) *world {
	t.Helper()
	books, err := ledger.Open(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = books.Close() })
	w := &world{t: t, api: zegofake.New(1, "server secret"), now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), started: map[uint64]session.Session{}}
	client, err := serverapi.New(serverapi.DefaultURL, map[uint32][]string{1: {"server secret"}})
	if err != nil {
		t.Fatal(err)
	}
	client.HTTP.Transport = inProcess{w.api}
	w.Reconciler = &reconcile.Reconciler{
		Ledger: books, API: client, OverdueAfter: overdueAfter, Gap: gap, Now: w.clock, Pause: time.Millisecond,
		Start: func(_ context.Context, s session.Session) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.refuse == nil {
				w.started[s.RoomSessionID] = s
			}
			return w.refuse
		},
	}
	return w
}

// inProcess calls a handler without a network.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result(), r.Context().Err()
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// pass advances the clock.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// record records events of a session, received now: its room_create, unless create is zero, and its
// stays.
func (w *world) record(app uint32, room string, number uint64, create time.Time, stays ...ledger.Event) {
	w.t.Helper()
	usage := []ledger.Event{}
	if !create.IsZero() {
		usage = append(usage, ledger.Event{Event: zego.EventRoomCreate, Create: create})
	}
	for i := range usage {
		usage[i].AppID, usage[i].RoomID, usage[i].RoomSessionID, usage[i].SeenAt = app, room, number, w.clock()
	}
	for _, s := range stays {
		s.AppID, s.RoomID, s.RoomSessionID, s.SeenAt, s.Event = app, room, number, w.clock(), zego.EventRoomLogin
		if !s.Logout.IsZero() {
			s.Event = zego.EventRoomLogout
		}
		usage = append(usage, s)
	}
	if err := w.Ledger.Record(w.t.Context(), usage); err != nil {
		w.t.Fatal(err)
	}
}

func stay(user string, login, logout time.Time) ledger.Event {
	return ledger.Event{Stay: fmt.Sprint(user, login.UnixMilli()), User: user, Login: login, Logout: logout}
}

// check checks all pages, as a run does.
func (w *world) check() map[uint32]reconcile.Counts {
	w.t.Helper()
	all, _ := w.checkFrom(reconcile.Progress{})
	return all
}

func (w *world) checkFrom(p reconcile.Progress) (map[uint32]reconcile.Counts, reconcile.Progress) {
	w.t.Helper()
	all := map[uint32]reconcile.Counts{}
	for {
		env := (&testsuite.WorkflowTestSuite{}).NewTestActivityEnvironment()
		env.RegisterActivity(w.Reconciler)
		value, err := env.ExecuteActivity(w.Reconciler.CheckOverdueSessions, p)
		if err != nil {
			w.t.Fatal(err)
		}
		var page reconcile.Page
		if err := value.Get(&page); err != nil {
			w.t.Fatal(err)
		}
		for app, c := range page.Apps {
			sum := all[app]
			sum.Overdue, sum.Asked, sum.Alive, sum.Doubtful = sum.Overdue+c.Overdue, sum.Asked+c.Asked, sum.Alive+c.Alive, sum.Doubtful+c.Doubtful
			sum.Gone, sum.Reported, sum.Failed = sum.Gone+c.Gone, sum.Reported+c.Reported, sum.Failed+c.Failed
			if c.Error != "" {
				sum.Error = c.Error
			}
			all[app] = sum
		}
		p.Before, p.After, p.Failing = page.Before, page.After, page.Failing
		if page.Last {
			return all, p
		}
	}
}

// until checks once a minute until that many sessions have been started. It returns the number of
// checks, or 0 if most checks weren't enough.
func (w *world) until(started, most int) int {
	w.t.Helper()
	for n := 1; n <= most; n++ {
		w.check()
		if len(w.started) >= started {
			return n
		}
		w.pass(gap)
	}
	return 0
}

func (w *world) sessions() []uint64 { return slices.Sorted(maps.Keys(w.started)) }

func (w *world) expect(what string, got reconcile.Counts, want reconcile.Counts) {
	w.t.Helper()
	got.Error = ""
	if got != want {
		w.t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func onBoth(t *testing.T, test func(t *testing.T, w *world)) {
	t.Parallel()
	testenv.Databases(t, func(t *testing.T, databaseURL string) { test(t, newWorld(t, databaseURL)) })
}

// The room is gone, but no room_close came. After three answers a minute apart, the session is
// closed out with the time of its last logout.
func TestGoneSessionIsClosedOutAfterSeveralAnswers(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		noon := w.now
		w.record(1, "lobby", 7, noon, stay("a", noon, noon.Add(time.Minute)), stay("b", noon, noon.Add(2*time.Minute)))
		w.pass(overdueAfter)
		w.expect("not overdue yet", w.check()[1], reconcile.Counts{})
		w.pass(time.Minute)
		w.expect("the first answer", w.check()[1], reconcile.Counts{Overdue: 1, Asked: 1, Doubtful: 1})
		w.pass(gap / 2)
		w.expect("too early to ask again", w.check()[1], reconcile.Counts{Overdue: 1, Doubtful: 1})
		w.pass(gap / 2)
		w.expect("the second", w.check()[1], reconcile.Counts{Overdue: 1, Asked: 1, Doubtful: 1})
		if len(w.started) != 0 {
			t.Fatal("closed out after two answers")
		}
		w.pass(gap)
		w.expect("the third", w.check()[1], reconcile.Counts{Overdue: 1, Asked: 1, Gone: 1})
		if got, want := w.started[7], (session.Session{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "lobby", RoomCloseTime: noon.Add(2 * time.Minute), Reconciled: true}); got != want {
			t.Errorf("started %+v, want %+v", got, want)
		}
		w.pass(time.Hour)
		w.expect("afterwards", w.check()[1], reconcile.Counts{})
		if n := len(w.api.Calls("")); n != 3 {
			t.Errorf("%d calls", n)
		}
	})
}

// An answer with a user in the room resets the count of empty answers.
func TestAnswersCountInARow(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.record(1, "lobby", 7, w.now, stay("a", w.now, time.Time{}))
		w.pass(overdueAfter + time.Minute)
		w.check()
		w.pass(gap)
		w.check()
		w.pass(gap)
		w.api.Room(1, "lobby", zegofake.User{ID: "a", Login: w.now.Add(-time.Hour)})
		w.expect("somebody is there", w.check()[1], reconcile.Counts{Overdue: 1, Asked: 1, Alive: 1})
		w.api.Room(1, "lobby")
		w.pass(gap)
		w.expect("it was seen alive just now", w.check()[1], reconcile.Counts{})
		w.pass(overdueAfter)
		if n := w.until(1, 5); n != reconcile.Answers {
			t.Errorf("closed out after %d answers", n)
		}
	})
}

// An answer with users in the room resets the count of empty answers, even if ZEGO does not say
// since when they are there.
func TestUnclearAnswerRestartsTheCount(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		noon := w.now
		w.record(1, "lobby", 7, noon, stay("a", noon, noon.Add(time.Minute)))
		w.pass(overdueAfter + time.Minute)
		w.check()
		w.pass(gap)
		w.check()
		w.pass(gap)
		w.api.Room(1, "lobby", zegofake.User{ID: "b", Login: noon})
		w.api.Fail(func(q url.Values) *zegofake.Failure {
			if q.Get("Action") == "DescribeUsers" {
				return &zegofake.Failure{Status: http.StatusServiceUnavailable}
			}
			return nil
		})
		if got := w.check()[1]; got.Failed != 1 {
			t.Errorf("found %+v, want a failure", got)
		}
		w.api.Fail(nil)
		w.api.Room(1, "lobby")
		w.pass(overdueAfter + time.Minute)
		if n := w.until(1, 5); n != reconcile.Answers {
			t.Errorf("closed out after %d answers", n)
		}
	})
}

// Only recorders are left in the room.
func TestRoomWithOnlyRecordersIsEmpty(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.record(1, "lobby", 7, w.now, stay("a", w.now, w.now.Add(time.Minute)))
		w.api.Room(1, "lobby", zegofake.User{ID: "recorder", Login: w.now, Admin: true})
		w.pass(overdueAfter + time.Minute)
		if n := w.until(1, 5); n != reconcile.Answers {
			t.Errorf("closed out after %d answers", n)
		}
	})
}

// A room_id has a second session, known from callbacks or from the times at which ZEGO's users
// logged in. Only the first session is gone.
func TestRoomWithANewSession(t *testing.T) {
	for _, tt := range []struct {
		name     string
		first    func(noon time.Time) []ledger.Event
		second   bool // callbacks reported it
		login    time.Duration
		gone     []uint64
		lifetime int
	}{
		{"callbacks reported it, and a logout was lost", func(noon time.Time) []ledger.Event { return []ledger.Event{stay("a", noon, time.Time{})} }, true, 5 * time.Minute, []uint64{7}, 2},
		{"callbacks reported it, and all had left", func(noon time.Time) []ledger.Event { return []ledger.Event{stay("a", noon, noon.Add(time.Minute))} }, true, 5 * time.Minute, []uint64{7}, 2},
		{"all had left before the others entered", func(noon time.Time) []ledger.Event { return []ledger.Event{stay("a", noon, noon.Add(time.Minute))} }, false, 5 * time.Minute, []uint64{7}, 1},
		{"somebody without a callback was in it already", func(noon time.Time) []ledger.Event { return []ledger.Event{stay("a", noon, noon.Add(time.Minute))} }, false, 30 * time.Second, nil, 1},
		{"somebody entered when the last one left", func(noon time.Time) []ledger.Event { return []ledger.Event{stay("a", noon, noon.Add(time.Minute))} }, false, 62 * time.Second, nil, 1},
		{"somebody hasn't left it", func(noon time.Time) []ledger.Event { return []ledger.Event{stay("a", noon, time.Time{})} }, false, 5 * time.Minute, nil, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, w *world) {
				noon := w.now
				w.record(1, "lobby", 7, noon, tt.first(noon)...)
				w.pass(10 * time.Minute)
				if tt.second {
					w.record(1, "lobby", 8, noon.Add(tt.login), stay("b", noon.Add(tt.login), time.Time{}))
				}
				w.api.Room(1, "lobby", zegofake.User{ID: "b", Login: noon.Add(tt.login)}, zegofake.User{ID: "c", Login: noon.Add(tt.login + time.Minute)})
				w.pass(overdueAfter + time.Minute)
				w.expect("the first answer", w.check()[1], reconcile.Counts{Overdue: tt.lifetime, Asked: tt.lifetime, Alive: tt.lifetime - len(tt.gone), Doubtful: len(tt.gone)})
				for range reconcile.Answers {
					w.pass(gap)
					w.check()
				}
				w.pass(overdueAfter) // the session that was seen alive is overdue again
				w.check()
				if got := w.sessions(); !slices.Equal(got, tt.gone) {
					t.Errorf("closed out %d, want %d", got, tt.gone)
				}
			})
		})
	}
}

// An app without a server secret is reported, and doesn't delay the other apps.
func TestWithoutASecretSessionsAreReported(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.record(1, "lobby", 7, w.now, stay("a", w.now, w.now))
		w.record(2, "lobby", 7, w.now, stay("a", w.now, w.now))
		w.record(2, "hall", 9, w.now)
		w.pass(overdueAfter + time.Minute)
		got := w.check()
		w.expect("with a secret", got[1], reconcile.Counts{Overdue: 1, Asked: 1, Doubtful: 1})
		w.expect("without one", got[2], reconcile.Counts{Overdue: 2, Reported: 2})
		if n := w.until(2, 5); n != 0 || w.started[7].AppID != 1 {
			t.Errorf("started %v", w.started)
		}
		if o, err := w.Ledger.CountOverdue(t.Context(), w.now.Add(-overdueAfter)); err != nil || o.Left != 1 || o.Silent != 1 {
			t.Errorf("counted %+v, %v", o, err)
		}
	})
}

// Without a valid answer from ZEGO, no session is closed out.
func TestWithoutAnAnswerNothingIsClosedOut(t *testing.T) {
	for name, failure := range map[string]zegofake.Failure{
		"busy":           {Code: 1, Message: "failed"},
		"limited":        {Code: 206, Message: "app qps limit"},
		"a wrong secret": {Code: 100000005, Message: "invalid signature"},
		"a proxy":        {Status: 502, Body: "Bad Gateway"},
		"an empty page":  {Body: "{}"},
		"no rooms":       {Body: `{"Code":0,"Data":{"UserCountList":[]}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "sqlite:"+t.TempDir()+"/ledger.db")
			for n := range 40 {
				w.record(1, fmt.Sprint("room", n), uint64(n+1), w.now, stay("a", w.now, w.now))
			}
			w.api.App(3, "another")
			w.pass(overdueAfter + time.Minute)
			w.api.Fail(func(url.Values) *zegofake.Failure { return &failure })
			got, after := w.checkFrom(reconcile.Progress{})
			if got[1].Failed != 40 || got[1].Error == "" || got[1].Overdue != 40 || after.Failing[1] != 3 {
				t.Errorf("counts %+v, failing %v", got[1], after.Failing)
			}
			if n := len(w.api.Calls("")); n > 9 {
				t.Errorf("%d calls that failed", n)
			}
			if len(w.started) != 0 {
				t.Errorf("started %v", w.sessions())
			}
			w.api.Fail(nil)
			w.expect("when it is back", w.check()[1], reconcile.Counts{Overdue: 40, Asked: 40, Doubtful: 40})
		})
	}
}

// A failing app costs a run three calls, even if each page has only a few of its sessions.
func TestFailingAppIsLeftAloneAcrossPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sqlite:"+t.TempDir()+"/ledger.db")
	const pages = 6
	var usage []ledger.Event
	for n := range uint64(pages * 200) {
		app := uint32(2) // an app without a secret
		if n%200 == 100 {
			app = 1
		}
		usage = append(usage, ledger.Event{ID: session.ID{AppID: app, RoomSessionID: n + 1}, RoomID: fmt.Sprint("room", n), Event: zego.EventRoomCreate,
			Create: w.now, SeenAt: w.now.Add(time.Duration(n) * time.Millisecond)})
	}
	if err := w.Ledger.Record(t.Context(), usage); err != nil {
		t.Fatal(err)
	}
	w.pass(overdueAfter + time.Minute)
	for _, tt := range []struct {
		name   string
		answer func(call int) bool
		calls  int
		counts reconcile.Counts
	}{
		{"it never answers", func(int) bool { return false }, 9, reconcile.Counts{Overdue: pages, Failed: pages}},
		{"it answers after two failures", func(call int) bool { return call == 7 }, 6 + 1 + 9, reconcile.Counts{Overdue: pages, Asked: 1, Doubtful: 1, Failed: pages - 1}},
	} {
		before, call := len(w.api.Calls("")), 0
		w.api.Fail(func(url.Values) *zegofake.Failure {
			if call++; tt.answer(call) {
				return nil
			}
			return &zegofake.Failure{Status: 503, Body: "busy"}
		})
		counts, after := w.checkFrom(reconcile.Progress{})
		w.expect(tt.name, counts[1], tt.counts)
		if n := len(w.api.Calls("")) - before; n != tt.calls || len(after.Failing) != 1 || after.Failing[1] != 3 {
			t.Errorf("%s: %d calls, failing %v", tt.name, n, after.Failing)
		}
	}
}

// waiting passes on the calls for the last app. The calls for all other apps fail, and not before
// the last app has been called.
type waiting struct {
	http.RoundTripper
	t    *testing.T
	last string
	once sync.Once
	come chan struct{}
}

func (w *waiting) RoundTrip(r *http.Request) (*http.Response, error) {
	come := func() { w.once.Do(func() { close(w.come) }) }
	if r.URL.Query().Get("AppId") == w.last {
		come()
		return w.RoundTripper.RoundTrip(r)
	}
	select {
	case <-w.come:
	case <-time.After(10 * time.Second):
		w.t.Error("the last app waits for the others")
		come()
	}
	return nil, errors.New("no answer")
}

// If ZEGO answers for no app, for instance because of a firewall, a page takes as long as one app.
// One after the other, ten apps would exceed the page's limit.
func TestUnansweredAppsDelayNoOther(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const apps = 20
		secrets := map[uint32][]string{}
		for app := uint32(1); app <= apps; app++ {
			w.api.App(app, "server secret")
			secrets[app] = []string{"server secret"}
			for n := range uint64(3) {
				w.record(app, fmt.Sprint("room", n), n+1, w.now, stay("a", w.now, w.now))
			}
		}
		client, err := serverapi.New(serverapi.DefaultURL, secrets)
		if err != nil {
			t.Fatal(err)
		}
		client.HTTP.Transport = &waiting{RoundTripper: inProcess{w.api}, t: t, last: fmt.Sprint(apps), come: make(chan struct{})}
		w.API = client
		w.pass(overdueAfter + time.Minute)
		got := w.check()
		for app := uint32(1); app < apps; app++ {
			w.expect(fmt.Sprint("app ", app), got[app], reconcile.Counts{Overdue: 3, Failed: 3})
		}
		w.expect("the app that is answered for", got[apps], reconcile.Counts{Overdue: 3, Asked: 3, Doubtful: 3})
	})
}

// A room that ZEGO refuses fails alone.
func TestRefusedRoomDelaysNoOther(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for n := range 12 {
			w.record(1, fmt.Sprint("room", n), uint64(n+1), w.now, stay("a", w.now, w.now))
		}
		w.api.Fail(func(q url.Values) *zegofake.Failure {
			if slices.Contains(q["RoomId[]"], "room3") {
				return &zegofake.Failure{Code: 2, Message: "input params error"}
			}
			return nil
		})
		w.pass(overdueAfter + time.Minute)
		got := w.check()[1]
		w.expect("of twelve", got, reconcile.Counts{Overdue: 12, Asked: 11, Doubtful: 11, Failed: 1})
		if !strings.Contains(got.Error, "code 2: input params error") {
			t.Errorf("error %q", got.Error)
		}
	})
}

// A room that is missing from ZEGO's answer fails alone, too. Otherwise the same call would fail in
// each run, because each run asks about the oldest sessions first.
func TestRoomMissingFromAnAnswerDelaysNoOther(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for n := range 12 {
			w.record(1, fmt.Sprint("room", n), uint64(n+1), w.now, stay("a", w.now, w.now))
		}
		w.api.Fail(func(q url.Values) *zegofake.Failure {
			rooms := q["RoomId[]"]
			if !slices.Contains(rooms, "room3") {
				return nil
			}
			var answers []string
			for _, room := range rooms {
				if room != "room3" {
					answers = append(answers, fmt.Sprintf(`{"RoomId":%q,"UserCount":0}`, room))
				}
			}
			return &zegofake.Failure{Body: `{"Code":0,"Data":{"UserCountList":[` + strings.Join(answers, ",") + `]}}`}
		})
		w.pass(overdueAfter + time.Minute)
		got := w.check()[1]
		w.expect("of twelve", got, reconcile.Counts{Overdue: 12, Asked: 11, Doubtful: 11, Failed: 1})
		if !strings.Contains(got.Error, `says nothing of room "room3"`) || len(w.api.Calls("")) != 2 {
			t.Errorf("error %q, %d calls", got.Error, len(w.api.Calls("")))
		}
	})
}

// A failed call is repeated.
func TestTransientError(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sqlite:"+t.TempDir()+"/ledger.db")
	w.record(1, "lobby", 7, w.now, stay("a", w.now, w.now))
	w.pass(overdueAfter + time.Minute)
	failed := false
	w.api.Fail(func(url.Values) *zegofake.Failure {
		if failed {
			return nil
		}
		failed = true
		return &zegofake.Failure{Status: 503, Body: "busy"}
	})
	w.expect("one of two", w.check()[1], reconcile.Counts{Overdue: 1, Asked: 1, Doubtful: 1})
}

// If the Workflow can't be started, the session stays overdue.
func TestFailedStartIsRetried(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.record(1, "lobby", 7, w.now, stay("a", w.now, w.now))
		w.pass(overdueAfter + time.Minute)
		w.refuse = errors.New("the route panicked")
		for range 2 {
			w.check()
			w.pass(gap)
		}
		got := w.check()[1]
		w.expect("the start fails", got, reconcile.Counts{Overdue: 1, Asked: 1, Failed: 1})
		if !strings.Contains(got.Error, "the route panicked") {
			t.Errorf("error %q", got.Error)
		}
		w.refuse = nil
		w.pass(gap)
		w.expect("it succeeds", w.check()[1], reconcile.Counts{Overdue: 1, Asked: 1, Gone: 1})
	})
}

// A call asks about ten rooms. A room with several sessions is in one call, and all pages are
// checked.
func TestSessionsAreCheckedTenPerCall(t *testing.T) {
	t.Parallel() // the rate limit makes it take about five seconds
	w := newWorld(t, "sqlite:"+t.TempDir()+"/ledger.db")
	const rooms = 450
	for n := range rooms {
		w.record(1, fmt.Sprint("room", n), uint64(n+1), w.now, stay("a", w.now, w.now))
	}
	w.record(1, "room0", rooms+1, w.now)
	w.pass(overdueAfter + time.Minute)
	w.expect("all", w.check()[1], reconcile.Counts{Overdue: rooms + 1, Asked: rooms + 1, Doubtful: rooms + 1})
	calls := w.api.Calls("DescribeUserNum")
	if len(calls) < 45 || len(calls) > 48 { // a page may end with fewer than ten
		t.Errorf("%d calls", len(calls))
	}
}

// Adjustments that can't be started, or whose runs are still open, don't keep others from being
// started, however many there are.
func TestAllBillsWithLaterEventsAreAdjusted(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const bills = 450
		for n := uint64(1); n <= bills; n++ {
			w.record(1, "lobby", n, w.now)
			if _, _, err := w.Ledger.Finalize(t.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: n}, RoomID: "lobby", RoomCloseTime: w.now.Add(time.Hour)}}); err != nil {
				t.Fatal(err)
			}
			w.record(1, "lobby", n, time.Time{}, stay("a", w.now, w.now.Add(time.Minute)))
		}
		adjust := func() (int, error) {
			env := (&testsuite.WorkflowTestSuite{}).NewTestActivityEnvironment()
			env.RegisterActivity(w.Reconciler)
			value, err := env.ExecuteActivity(w.StartAdjustments)
			n := 0
			if err == nil {
				err = value.Get(&n)
			}
			return n, err
		}
		if n, err := adjust(); n != 0 || err != nil {
			t.Errorf("without billing: %d, %v", n, err)
		}
		started := map[uint64]int{}
		w.Adjust = func(_ context.Context, s ledger.BilledSession) error {
			started[s.RoomSessionID] += s.Number
			return nil
		}
		if n, err := adjust(); n != bills || err != nil || len(started) != bills {
			t.Errorf("%d, %v, of %d sessions", n, err, len(started))
		}
		if started[1] != 1 || started[bills] != 1 {
			t.Errorf("the first %d times, the last %d times", started[1], started[bills])
		}
		w.Adjust = func(_ context.Context, s ledger.BilledSession) error {
			started[s.RoomSessionID]++
			if s.RoomSessionID == 7 {
				return errors.New("too many requests")
			}
			return nil
		}
		if n, err := adjust(); n != 0 || err != nil {
			t.Errorf("while their runs are open: %d, %v", n, err)
		}
		w.pass(24*time.Hour + time.Second)
		_, err := adjust()
		if err == nil || !strings.Contains(err.Error(), "1 of 450: session 7 of app 1: too many requests") || started[bills] != 2 {
			t.Errorf("%v, the last %d times", err, started[bills])
		}
	})
}

// archived archives a session of app 1 that began an hour ago.
func (w *world) archived(number uint64) {
	w.t.Helper()
	now := w.clock()
	w.record(1, "lobby", number, now.Add(-time.Hour))
	if err := w.Ledger.ArchivedRecordings(w.t.Context(), session.Session{ID: session.ID{AppID: 1, RoomSessionID: number}, RoomID: "lobby", CloseReason: "2", RoomCloseTime: now}, nil); err != nil {
		w.t.Fatal(err)
	}
}

// recorded records the callback of a recording in the lobby that began the given time ago.
func (w *world) recorded(task string, before time.Duration) {
	w.t.Helper()
	now := w.clock()
	u, _ := ledger.EventOf(&zego.Recording{Common: zego.Common{Event: zego.EventRecording, AppID: 1, Timestamp: now.Unix()}, TaskID: task, RoomID: "lobby",
		EventType: zego.RecordingUploaded, Files: []zego.RecordedFile{{FileID: task + ".mp4", Status: zego.FileUploaded, Begin: now.Add(-before)}}}, now)
	if err := w.Ledger.Record(w.t.Context(), []ledger.Event{u}); err != nil {
		w.t.Fatal(err)
	}
}

func TestLateRecordingsAreHandedOver(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		running, refuse := false, error(nil)
		var started []uint64
		w.AddLate = func(_ context.Context, s session.Session) (bool, error) {
			if s.RoomID != "lobby" || s.CloseReason != "2" || s.RoomCloseTime.IsZero() {
				t.Errorf("session %+v", s)
			}
			if !running && refuse == nil {
				started = append(started, s.RoomSessionID)
			}
			return !running, refuse
		}
		start := func(what string, want ...uint64) {
			t.Helper()
			started = nil
			env := (&testsuite.WorkflowTestSuite{}).NewTestActivityEnvironment()
			env.RegisterActivity(w.Reconciler)
			value, err := env.ExecuteActivity(w.StartLateRecordings)
			var n int
			if (err != nil) != (refuse != nil) || err == nil && (value.Get(&n) != nil || n != len(want)) || !slices.Equal(started, want) {
				t.Errorf("%s: %d, %v, started %d, want %d", what, n, err, started, want)
			}
		}
		w.archived(1)
		w.pass(2 * time.Hour)
		w.archived(2)
		w.recorded("A", 2*time.Hour+30*time.Minute) // in session 1
		w.recorded("B", 30*time.Minute)             // in session 2
		w.recorded("C", 20*time.Minute)             // in session 2
		w.recorded("D", 90*time.Minute)             // in no session
		refuse = errors.New("Temporal is away")
		start("while Temporal is away")
		refuse, running = nil, true
		start("while runs are under way, which may not know of it")
		running = false
		start("they are under way for all that anybody knows")
		w.pass(time.Hour)
		start("then", 1, 2)
		start("and once")
		w.recorded("E", time.Hour+10*time.Minute)
		start("one more", 2)

		if err := w.Ledger.AssignRecording(t.Context(), session.ID{AppID: 1, RoomSessionID: 1}, "D"); err != nil {
			t.Fatal(err)
		}
		start("one that was assigned", 1)

		w.pass(31 * 24 * time.Hour)
		if err := w.Ledger.AssignRecording(t.Context(), session.ID{AppID: 1, RoomSessionID: 1}, "D"); err != nil {
			t.Fatal(err)
		}
		start("one that is of long ago")
	})
}

// activity runs an Activity that returns only the number of started runs.
func (w *world) activity(f func(context.Context) (int, error)) {
	w.t.Helper()
	env := (&testsuite.WorkflowTestSuite{}).NewTestActivityEnvironment()
	env.RegisterActivity(w.Reconciler)
	if _, err := env.ExecuteActivity(f); err != nil {
		w.t.Fatal(err)
	}
}
