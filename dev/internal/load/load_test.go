package load_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/closeouthq/closeout/dev/internal/load"
	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// options returns the required options.
func options(change func(*load.Options)) load.Options {
	o := load.Options{URL: "http://closeout.test/zego/callbacks", AppID: 7, Secret: "secret", RoomID: "lobby", RoomSessionID: 100, Count: 1, Timeout: 5 * time.Second}
	if change != nil {
		change(&o)
	}
	return o
}

// The webhook accepts the callbacks that are sent.
func TestWebhookAcceptsCallbacks(t *testing.T) {
	ring, err := zego.NewKeyring(map[uint32][]string{7: {"secret"}}, time.Minute, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	got := &intake{sessions: map[uint64]string{}}
	server := httptest.NewServer(webhook.Router(webhook.Options{Keyring: ring, Receiver: got, Log: slog.New(slog.DiscardHandler)}))
	defer server.Close()
	var out strings.Builder
	report, err := load.Run(t.Context(), options(func(o *load.Options) {
		o.URL, o.RoomSessionID, o.CloseReason, o.RoomCloseTime = server.URL+webhook.Path, 1<<63+1, "2", time.UnixMilli(1499676989909)
		o.Count, o.Parallel, o.Duplicates, o.BadSignatures, o.Resign = 5, 3, 1, 1, 0.5
	}), &out)
	if err != nil || report.FirstAttempt != 5 || report.BadlySigned != (load.BadlySigned{Sent: 5, Refused: 5}) {
		t.Fatalf("report %+v, %v:\n%s", report, err, out.String())
	}
	if len(got.sessions) != 5 || got.sessions[1<<63+5] != "lobby last user went offline 2017-07-10T08:56:29.909Z" {
		t.Errorf("got %v", got.sessions)
	}
	if !strings.Contains(out.String(), `room_session_id 9223372036854775809, attempt 1: 200 OK {"status":"started"`) {
		t.Errorf("output:\n%s", out.String())
	}
}

type intake struct {
	mu       sync.Mutex
	sessions map[uint64]string
}

func (i *intake) Receive(_ context.Context, event zego.Event) (webhook.Receipt, error) {
	c := event.(*zego.RoomClose)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sessions[c.RoomSessionID] = c.RoomID + " " + zego.CloseReasonText(c.CloseReason) + " " + c.RoomCloseTime.Format(time.RFC3339Nano)
	return webhook.Receipt{Status: webhook.Started}, nil
}

// arrival is a callback that arrived.
type arrival struct {
	at   time.Duration
	body string
	zego.RoomClose
}

// far is a receiver inside a synctest bubble, where the clock is fake. It records arrivals and
// answers as configured.
type far struct {
	began    time.Time
	answer   func(a arrival, nth int) (int, string) // nth delivery of the session, from 1
	takes    time.Duration
	mu       sync.Mutex
	arrivals []arrival
	seen     map[uint64]int
}

const (
	hang   = -1
	refuse = -2
)

func (f *far) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	event, err := zego.Parse(r.Header.Get("Content-Type"), body)
	if err != nil {
		return nil, err
	}
	a := arrival{time.Since(f.began), string(body), *event.(*zego.RoomClose)}
	f.mu.Lock()
	f.arrivals = append(f.arrivals, a)
	f.seen[a.RoomSessionID]++
	nth := f.seen[a.RoomSessionID]
	f.mu.Unlock()
	code, text := http.StatusOK, `{"status":"started"}`
	if f.answer != nil {
		code, text = f.answer(a, nth)
	}
	select {
	case <-time.After(f.takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	switch code {
	case hang:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case refuse:
		return nil, errors.New("something else")
	}
	return &http.Response{StatusCode: code, Status: fmt.Sprint(code, " ", http.StatusText(code)), Body: io.NopCloser(strings.NewReader(text))}, nil
}

// inBubble runs o in a synctest bubble, and returns the arrivals, sorted by session and time.
func inBubble(t *testing.T, o load.Options, f *far, check func(report *load.Report, err error, out string)) []arrival {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f.began, f.seen = time.Now(), map[uint64]int{}
		o.Transport = f
		var out strings.Builder
		report, err := load.Run(t.Context(), o, &out)
		if check != nil {
			check(report, err, out.String())
		} else if err != nil || report.Acknowledged != int64(o.Count) {
			t.Errorf("report %+v, %v", report, err)
		}
	})
	slices.SortFunc(f.arrivals, func(a, b arrival) int {
		return cmp.Or(cmp.Compare(a.RoomSessionID, b.RoomSessionID), cmp.Compare(a.at, b.at), cmp.Compare(a.body, b.body))
	})
	return f.arrivals
}

// ZEGO's attempts come at 0, 2, 6, 14, 30 and 62 s, plus the time of each answer. Then
// ZEGO drops the callback.
func TestLadder(t *testing.T) {
	tests := []struct {
		name   string
		answer int
		takes  time.Duration
		once   bool
		want   []int // seconds
		last   string
	}{
		{"refused", 503, 0, false, []int{0, 2, 6, 14, 30, 62}, "room_session_id 100, attempt 6: 503 Service Unavailable away; ZEGO would now forget it\n"},
		{"after each answer", 503, time.Second, false, []int{0, 3, 8, 17, 34, 67}, "; ZEGO would now forget it\n"},
		{"after each timeout", hang, 0, false, []int{0, 7, 16, 29, 50, 87}, "attempt 6: no answer within 5s; ZEGO would now forget it\n"},
		{"redirected", 307, 0, false, []int{0, 2, 6, 14, 30, 62}, "attempt 6: 307 Temporary Redirect away; ZEGO would now forget it\n"},
		{"once", 503, 0, true, []int{0}, "attempt 1: 503 Service Unavailable away\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			arrivals := inBubble(t, options(func(o *load.Options) { o.Once = tt.once }),
				&far{takes: tt.takes, answer: func(arrival, int) (int, string) { return tt.answer, "away" }},
				func(report *load.Report, err error, out string) {
					if err != nil || report.Lost != 1 || report.Attempts != int64(len(tt.want)) {
						t.Errorf("report %+v, %v", report, err)
					}
					if !strings.HasSuffix(out, tt.last) || strings.Count(out, "; again in ") != len(tt.want)-1 {
						t.Errorf("output:\n%s", out)
					}
				})
			var at []int
			for _, a := range arrivals {
				at = append(at, int(a.at/time.Second))
			}
			if !slices.Equal(at, tt.want) {
				t.Errorf("attempts at %v, want %v", at, tt.want)
			}
		})
	}
}

// Every number of the report, against a receiver that answers in all ways.
func TestReportCounts(t *testing.T) {
	f := &far{answer: func(a arrival, nth int) (int, string) {
		switch a.RoomSessionID {
		case 100:
			return 200, `{"status":"started"}`
		case 101: // at the third attempt
			if nth < 3 {
				return 503, ""
			}
			return 202, `{"status":"queued"}`
		case 102: // lost
			return 500, `{"status":"started"}`
		case 103: // acknowledged at the last attempt
			if nth < 4 {
				return hang, ""
			}
			return 200, `{"status":"` + "\x1b" + `[31m"}`
		case 104: // lost, each time for a different reason
			return []int{hang, refuse, 404, 503}[nth-1], ""
		default:
			return 200, ""
		}
	}}
	var entries []audit.Entry
	inBubble(t, options(func(o *load.Options) {
		o.Count, o.Ladder = 6, []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}
		o.Journal = func(e audit.Entry) { entries = append(entries, e) }
	}), f, func(r *load.Report, err error, _ string) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Count != 6 || r.Sessions != 6 || r.Acknowledged != 4 || r.FirstAttempt != 2 || r.LaterAttempt != 2 || r.ByDuplicate != 0 || r.Lost != 2 || r.Undecided != 0 {
			t.Errorf("sessions: %+v", r)
		}
		if want := map[string]int64{"started": 1, "queued": 1, "unknown": 2}; !maps.Equal(r.Answers, want) {
			t.Errorf("answers %v, want %v", r.Answers, want)
		}
		if want := map[string]int64{"503": 3, "500": 4, "timeout": 4, "other": 1, "404": 1}; !maps.Equal(r.Failures, want) {
			t.Errorf("failures %v, want %v", r.Failures, want)
		}
		if l := r.Latency; r.Attempts != 17 || l.All.Count != 17 || l.Acknowledged.Count != 4 || l.Session.Count != 4 || l.Waited.Count != 17 {
			t.Errorf("%d attempts, latency %+v", r.Attempts, l)
		}
		// Session 103 ends last, after three timeouts and three pauses.
		if r.Duration != 21 || math.Abs(r.Latency.Session.Max/21000-1) > 0.001 || r.Latency.Session.P50 != 0 {
			t.Errorf("took %v s, sessions %+v", r.Duration, r.Latency.Session)
		}
	})
	attempts := map[uint64]int{}
	for _, e := range entries {
		attempts[e.RoomSessionID] = e.Attempts
		if lost := e.RoomSessionID == 102 || e.RoomSessionID == 104; e.Acknowledged == lost || e.Undecided {
			t.Errorf("entry %+v", e)
		}
	}
	if want := map[uint64]int{100: 1, 101: 3, 102: 4, 103: 4, 104: 4, 105: 1}; !maps.Equal(attempts, want) {
		t.Errorf("attempts %v, want %v", attempts, want)
	}
}

// Kinds of network errors are distinguished.
func TestFailuresAreNamed(t *testing.T) {
	server := func(serve http.HandlerFunc) func(*testing.T) string {
		return func(t *testing.T) string {
			s := httptest.NewServer(serve)
			t.Cleanup(s.Close)
			return s.URL
		}
	}
	dropped := func(linger int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			_ = conn.(*net.TCPConn).SetLinger(linger)
			_ = conn.Close()
		}
	}
	tests := []struct {
		want string
		url  func(*testing.T) string
	}{
		{"503", server(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })},
		{"302", server(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })},
		{"timeout", server(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})},
		{"connection reset", server(dropped(0))},
		{"connection closed", server(dropped(-1))},
		{"connection refused", func(t *testing.T) string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			return "http://" + l.Addr().String()
		}},
		{"TLS", func(t *testing.T) string {
			s := httptest.NewTLSServer(nil)
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
			t.Cleanup(s.Close)
			return s.URL
		}},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			report, err := load.Run(t.Context(), options(func(o *load.Options) {
				o.URL, o.Once = tt.url(t)+webhook.Path, true
				if tt.want == "timeout" {
					o.Timeout = 50 * time.Millisecond
				}
			}), io.Discard)
			if err != nil || report.Lost != 1 || !maps.Equal(report.Failures, map[string]int64{tt.want: 1}) {
				t.Errorf("report %+v, %v", report, err)
			}
		})
	}
}

// The report stays small, however many names the receiver sends.
func TestKindsAreBounded(t *testing.T) {
	code := 299
	inBubble(t, options(func(o *load.Options) { o.Count, o.Parallel, o.Once = 50, 1, true }),
		&far{answer: func(arrival, int) (int, string) { code++; return code, "" }},
		func(r *load.Report, err error, _ string) {
			if err != nil || r.Lost != 50 || len(r.Failures) != 21 || r.Failures["other"] != 30 {
				t.Errorf("report %+v, %v", r, err)
			}
		})
}

// The same seed makes the same run, at any speed of the receiver.
func TestSeedRepeatsARun(t *testing.T) {
	type seen struct {
		session uint64
		at      time.Duration
		room    string
		genuine bool
		again   bool // with the same signature as the one before
	}
	play := func(seed uint64, change func(*load.Options)) (all []seen) {
		var last arrival
		for _, a := range inBubble(t, options(func(o *load.Options) {
			o.Seed, o.Count, o.Rate, o.Rooms, o.Spread, o.Burst, o.BurstEvery = seed, 200, 100, 3, time.Second, 10, time.Second/2
			o.Duplicates, o.BadSignatures, o.Resign = 0.3, 0.2, 0.5
			if change != nil {
				change(o)
			}
		}), &far{answer: func(a arrival, nth int) (int, string) {
			if a.RoomSessionID >= 1<<63 {
				return 401, ""
			} else if nth == 1 {
				return 503, ""
			}
			return 200, ""
		}}, nil) {
			all = append(all, seen{a.RoomSessionID, a.at, a.RoomID, a.Signature == zego.Sign("secret", a.Timestamp, a.Nonce), a.Signature == last.Signature})
			last = a
		}
		return all
	}
	first := play(1, nil)
	if again := play(1, nil); !slices.Equal(first, again) {
		t.Error("the same seed made another run")
	}
	if other := play(2, nil); slices.Equal(first, other) {
		t.Error("another seed made the same run")
	}
	// An additional option doesn't change the effect of the others.
	genuine := slices.DeleteFunc(slices.Clone(first), func(s seen) bool { return !s.genuine })
	if without := play(1, func(o *load.Options) { o.BadSignatures = 0 }); !slices.Equal(genuine, without) || len(genuine) == len(first) {
		t.Error("without bad signatures the rest is another")
	}
}

// Deliveries come when they are due, whatever happened to earlier ones.
func TestOpenLoopDoesNotWait(t *testing.T) {
	const together = 100 // far more than parallel attempts in a closed loop
	var arrived sync.WaitGroup
	arrived.Add(together)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived.Done()
		arrived.Wait() // answer nobody before all have arrived
	}))
	defer server.Close()
	report, err := load.Run(t.Context(), options(func(o *load.Options) {
		o.URL, o.Count, o.Rate, o.Once, o.Timeout = server.URL, together, 10000, true, time.Minute
	}), io.Discard)
	if err != nil || report.FirstAttempt != together {
		t.Errorf("report %+v, %v", report, err)
	}
}

// A callback that waits for a connection is late, and its latency shows that.
func TestLatencyCountsFromTheDueTime(t *testing.T) {
	arrivals := inBubble(t, options(func(o *load.Options) { o.Count, o.Rate, o.Parallel = 3, 10, 1 }), &far{takes: time.Second},
		func(r *load.Report, err error, _ string) {
			// Due at 0, 0.1 and 0.2 s, sent at 0, 1 and 2 s.
			for name, got := range map[string][2]float64{
				"acknowledged": {r.Latency.Acknowledged.Max, 2800}, "all": {r.Latency.All.Max, 2800}, "session": {r.Latency.Session.Max, 2800},
				"median": {r.Latency.All.P50, 1900}, "waited": {r.Latency.Waited.Max, 1800},
				"offered": {r.OfferedRate, 10}, "achieved": {r.AcknowledgedRate, 1}, "duration": {r.Duration, 3},
			} {
				if math.Abs(got[0]/got[1]-1) > 0.001 {
					t.Errorf("%s: %v, want %v", name, got[0], got[1])
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	if len(arrivals) != 3 || arrivals[2].at != 2*time.Second {
		t.Errorf("arrivals %v", arrivals)
	}
}

// A closed loop has exactly Parallel attempts in flight, and a callback that waits for
// its retry blocks no other.
func TestClosedLoop(t *testing.T) {
	var mu sync.Mutex
	underWay, most := 0, 0
	f := &far{takes: time.Second, answer: func(a arrival, nth int) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		underWay++
		most = max(most, underWay)
		time.AfterFunc(time.Second-1, func() { mu.Lock(); underWay--; mu.Unlock() })
		if a.RoomSessionID == 100 && nth == 1 {
			return 503, ""
		}
		return 200, ""
	}}
	inBubble(t, options(func(o *load.Options) { o.Count, o.Parallel = 12, 4 }), f, func(r *load.Report, err error, _ string) {
		if err != nil || r.Acknowledged != 12 || most != 4 || r.Duration != 4 {
			t.Errorf("%d at once, report %+v, %v", most, r, err)
		}
		if r.Latency.Waited.Max != 0 {
			t.Errorf("waited %+v", r.Latency.Waited)
		}
	})
}

func TestSessionsRoomsAndTimes(t *testing.T) {
	tests := []struct {
		name   string
		change func(*load.Options)
		want   string
	}{
		{"closed loop", func(o *load.Options) { o.Count = 2 }, "100 lobby 0s, 101 lobby 0s"},
		{"ids wrap around", func(o *load.Options) { o.Count, o.RoomSessionID = 2, math.MaxUint64 }, "1 lobby 0s, 18446744073709551615 lobby 0s"},
		{"rooms", func(o *load.Options) { o.Count, o.Rooms = 5, 2 }, "100 lobby-1 0s, 101 lobby-2 0s, 102 lobby-1 0s, 103 lobby-2 0s, 104 lobby-1 0s"},
		{"rate", func(o *load.Options) { o.Count, o.Rate = 4, 2 }, "100 lobby 0s, 101 lobby 500ms, 102 lobby 1s, 103 lobby 1.5s"},
		{"slower than one", func(o *load.Options) { o.Count, o.Rate = 2, 0.001 }, "100 lobby 0s, 101 lobby 16m40s"},
		{"bursts on a rate", func(o *load.Options) { o.Count, o.Rate, o.Burst, o.BurstEvery = 7, 1, 2, 1500*time.Millisecond },
			"100 lobby 0s, 101 lobby 0s, 102 lobby 0s, 103 lobby 1s, 104 lobby 1.5s, 105 lobby 1.5s, 106 lobby 2s"},
		{"bursts alone, the last cut", func(o *load.Options) { o.Count, o.Burst, o.BurstEvery = 3, 2, time.Hour }, "100 lobby 0s, 101 lobby 0s, 102 lobby 1h0m0s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, a := range inBubble(t, options(tt.change), &far{}, nil) {
				got = append(got, fmt.Sprint(a.RoomSessionID, " ", a.RoomID, " ", a.at))
			}
			if s := strings.Join(got, ", "); s != tt.want {
				t.Errorf("got  %s\nwant %s", s, tt.want)
			}
		})
	}
}

func TestSpreadReorders(t *testing.T) {
	arrivals := inBubble(t, options(func(o *load.Options) { o.Count, o.Rate, o.Spread = 100, 100, 10*time.Second }), &far{}, nil)
	reordered := false
	for i, a := range arrivals {
		if due := time.Duration(i) * 10 * time.Millisecond; a.at < due || a.at > due+10*time.Second {
			t.Errorf("%d arrived after %v, due after %v", a.RoomSessionID, a.at, due)
		}
		reordered = reordered || i > 0 && a.at < arrivals[i-1].at
	}
	if !reordered {
		t.Error("all arrived in order")
	}
}

// A session is closed when its callback is first sent, however often it is repeated.
func TestRoomCloseTime(t *testing.T) {
	fails := func(_ arrival, nth int) (int, string) { return []int{0, 503, 200}[nth], "" }
	arrivals := inBubble(t, options(func(o *load.Options) { o.Count, o.Rate, o.Resign = 2, 1, 1 }), &far{answer: fails}, nil)
	if len(arrivals) != 4 {
		t.Errorf("%d callbacks, want 4", len(arrivals))
	}
	for _, a := range arrivals {
		sent := time.Duration(a.RoomSessionID-100) * time.Second
		if closed := a.RoomCloseTime.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); closed != sent {
			t.Errorf("%d, sent after %v: closed after %v", a.RoomSessionID, a.at, closed)
		}
	}
}

// A further delivery has the same content, with the same signature or a new one.
func TestResign(t *testing.T) {
	for resign, signatures := range map[float64]int{0: 1, 1: 3} {
		f := &far{answer: func(_ arrival, nth int) (int, string) { return []int{0, 503, 503, 200}[nth], "" }}
		arrivals := inBubble(t, options(func(o *load.Options) { o.Resign = resign }), f, nil)
		bodies := map[string]bool{}
		for _, a := range arrivals {
			bodies[a.body] = true
			// A new signature has a new timestamp.
			if age := a.at - time.Duration(a.Timestamp-arrivals[0].Timestamp)*time.Second; resign == 1 && age != 0 {
				t.Errorf("signed %v before it was sent", age)
			}
			if a.Signature != zego.Sign("secret", a.Timestamp, a.Nonce) || a.RoomCloseTime != arrivals[0].RoomCloseTime {
				t.Errorf("arrived: %s", a.body)
			}
		}
		if len(arrivals) != 3 || len(bodies) != signatures {
			t.Errorf("resign %v: %d deliveries of %d bodies, want %d", resign, len(arrivals), len(bodies), signatures)
		}
	}
}

// Package zego, which verifies real callbacks, accepts the copies and refuses the badly signed
// callbacks.
func TestDuplicatesAndBadSignatures(t *testing.T) {
	ring, err := zego.NewKeyring(map[uint32][]string{7: {"secret"}}, time.Minute, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	f := &far{answer: func(a arrival, nth int) (int, string) {
		if genuine := ring.Verify(a.Head()) == nil; genuine != (a.RoomSessionID < 1100) {
			t.Errorf("genuine: %v: %s", genuine, a.body)
		} else if !genuine {
			return 401, ""
		}
		return 200, `{"status":"` + []string{"", "started", "duplicate"}[nth] + `"}`
	}}
	arrivals := inBubble(t, options(func(o *load.Options) {
		o.Count, o.Duplicates, o.BadSignatures, o.Resign, o.Spread, o.Seed = 1000, 0.3, 0.1, 0.5, 10*time.Second, 1
	}), f, func(r *load.Report, err error, _ string) {
		copies, bad := r.Duplicates.Sent, r.BadlySigned.Sent
		if err != nil || copies < 250 || copies > 350 || r.Duplicates != (load.Duplicates{Sent: copies, Acknowledged: copies}) {
			t.Errorf("duplicates %+v, %v", r.Duplicates, err)
		}
		if bad < 70 || bad > 130 || r.BadlySigned != (load.BadlySigned{Sent: bad, Refused: bad}) {
			t.Errorf("badly signed %+v", r.BadlySigned)
		}
		if want := map[string]int64{"started": 1000, "duplicate": copies}; !maps.Equal(r.Answers, want) || len(r.Failures) > 0 || r.Attempts != 1000+copies {
			t.Errorf("answers %v, failures %v", r.Answers, r.Failures)
		}
	})
	// The signatures are wrong in different ways, but all look like signatures.
	kinds := map[bool]int{}
	for _, a := range arrivals {
		if a.RoomSessionID >= 1100 {
			if a.RoomSessionID-1<<63 < 100 || a.RoomSessionID-1<<63 >= 1100 || len(a.Signature) != 40 {
				t.Errorf("badly signed: %s", a.body)
			}
			kinds[a.Signature[1:] == zego.Sign("secret", a.Timestamp, a.Nonce)[1:]]++
		}
	}
	if kinds[true] == 0 || kinds[false] < kinds[true] {
		t.Errorf("wrong by one digit: %v", kinds)
	}
}

// The report counts forgeries that the receiver accepts. A forgery isn't retried.
func TestBadSignatureAccepted(t *testing.T) {
	inBubble(t, options(func(o *load.Options) { o.Count, o.BadSignatures = 4, 1 }), &far{answer: func(a arrival, _ int) (int, string) {
		return []int{200, 200, 401, 503}[a.RoomSessionID%4], ""
	}}, func(r *load.Report, err error, out string) {
		if err != nil || r.BadlySigned != (load.BadlySigned{Sent: 4, Accepted: 2, Refused: 1}) {
			t.Errorf("report %+v, %v", r.BadlySigned, err)
		}
		if !strings.Contains(out, "room_session_id 9223372036854775911, badly signed: 503 Service Unavailable\n") {
			t.Errorf("output:\n%s", out)
		}
	})
}

// An acknowledged copy acknowledges the session, but ZEGO still retries the original.
func TestDuplicateAlone(t *testing.T) {
	var entries []audit.Entry
	arrivals := inBubble(t, options(func(o *load.Options) {
		o.Duplicates, o.Spread, o.Ladder = 1, time.Minute, []time.Duration{time.Hour}
		o.Journal = func(e audit.Entry) { entries = append(entries, e) }
	}), &far{answer: func(_ arrival, nth int) (int, string) {
		return []int{0, 503, 200, 503}[nth], `{"status":"queued"}`
	}}, func(r *load.Report, err error, out string) {
		if err != nil || r.Acknowledged != 1 || r.ByDuplicate != 1 || r.Lost != 0 || r.Duplicates != (load.Duplicates{Sent: 1, Acknowledged: 1}) || r.Failures["503"] != 2 {
			t.Errorf("report %+v, %v", r, err)
		}
		if !strings.Contains(out, `room_session_id 100, duplicate: 200 OK {"status":"queued"}`+"\n") {
			t.Errorf("output:\n%s", out)
		}
	})
	if len(arrivals) != 3 || arrivals[2].at-arrivals[0].at != time.Hour {
		t.Errorf("arrivals %v", arrivals)
	}
	if len(entries) != 1 || !entries[0].Acknowledged || entries[0].Attempts != 2 || entries[0].Duplicates != 1 || entries[0].Status != "queued" {
		t.Errorf("journal %+v", entries)
	}
}

// A copy that isn't acknowledged is lost, but its session isn't.
func TestDuplicateLost(t *testing.T) {
	inBubble(t, options(func(o *load.Options) { o.Duplicates, o.Spread = 1, time.Minute }),
		&far{answer: func(_ arrival, nth int) (int, string) { return []int{0, 200, 503}[nth], "" }},
		func(r *load.Report, err error, _ string) {
			if err != nil || r.FirstAttempt != 1 || r.Lost != 0 || r.Duplicates != (load.Duplicates{Sent: 1, Lost: 1}) {
				t.Errorf("report %+v, %v", r, err)
			}
		})
}

// A run that is stopped reports its results so far.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := errors.New("stopped")
		time.AfterFunc(3500*time.Millisecond, func() { cancel(stopped) })
		// One session a second: 100 is acknowledged, 101 is waiting for another attempt,
		// 102 and 103 for an answer, 104 was never sent.
		f := &far{began: time.Now(), seen: map[uint64]int{}, answer: func(a arrival, _ int) (int, string) {
			return map[uint64]int{100: 200, 101: 503, 102: hang, 103: hang}[a.RoomSessionID], ""
		}}
		undecided := map[uint64]bool{}
		report, err := load.Run(ctx, options(func(o *load.Options) {
			o.Count, o.Rate, o.Transport, o.Ladder = 5, 1, f, []time.Duration{time.Minute}
			o.Journal = func(e audit.Entry) { undecided[e.RoomSessionID] = e.Undecided && !e.Acknowledged }
		}), io.Discard)
		if !errors.Is(err, stopped) {
			t.Errorf("error %v", err)
		}
		if report.Duration != 3.5 || report.Count != 5 || report.Sessions != 4 || report.Acknowledged != 1 || report.Undecided != 3 || report.Lost != 0 || report.Attempts != 2 {
			t.Errorf("report %+v", report)
		}
		if want := map[uint64]bool{100: false, 101: true, 102: true, 103: true}; !maps.Equal(undecided, want) {
			t.Errorf("journal: undecided %v, want %v", undecided, want)
		}
	})
}

// A written journal can be read again without a difference.
func TestJournalRoundTrip(t *testing.T) {
	var file strings.Builder
	enc := json.NewEncoder(&file)
	want := map[uint64]audit.Entry{}
	inBubble(t, options(func(o *load.Options) {
		o.Count, o.RoomSessionID, o.RoomID, o.Duplicates, o.CloseReason = 3, 1<<63, strings.Repeat("<", 1024), 0.5, "3"
		o.Journal = func(e audit.Entry) {
			want[e.RoomSessionID] = e
			if err := enc.Encode(e); err != nil {
				t.Error(err)
			}
		}
	}), &far{takes: 1500 * time.Microsecond}, nil)
	if !strings.Contains(file.String(), `"room_session_id":"9223372036854775808"`) {
		t.Errorf("journal:\n%s", file.String())
	}
	got := map[uint64]audit.Entry{}
	for line := range strings.Lines(file.String()) {
		var e audit.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		got[e.RoomSessionID] = e
	}
	if len(got) != 3 || !reflect.DeepEqual(got, want) {
		t.Errorf("read    %+v\nwritten %+v", got, want)
	}
	if e := got[1<<63+2]; e.Status != "started" || e.Attempts != 1 || e.AcknowledgedAfter != 1.5 || e.OfferedAt.IsZero() || e.RoomCloseTime.IsZero() {
		t.Errorf("entry %+v", e)
	}
}

// The secret in the address appears nowhere: not in lines, errors, reports or answers.
func TestAddressIsNotShown(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "Cannot POST "+r.URL.EscapedPath(), 404)
	}))
	defer echo.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	shown := map[string]string{
		echo.URL + webhook.Path:                       echo.URL + webhook.Path,
		echo.URL + webhook.Path + "/hunter2":          echo.URL + webhook.Path + "/...",
		gone.URL + webhook.Path + "/hunter2":          gone.URL + webhook.Path + "/...",
		echo.URL + "/a b" + webhook.Path + "/hunter2": echo.URL + "/a%20b" + webhook.Path + "/...",
		echo.URL + webhook.Path + "/%68unter2?k=v":    echo.URL + webhook.Path + "/...",
		gone.URL + "/hunter2":                         gone.URL + "/...",
		gone.URL + "/":                                gone.URL,
		"http://u:hunter2@127.0.0.1:1" + webhook.Path: "http://127.0.0.1:1" + webhook.Path,
	}
	for address, want := range shown {
		for _, count := range []int{1, 30} {
			var out, progress, text strings.Builder
			report, err := load.Run(t.Context(), options(func(o *load.Options) {
				o.URL, o.Count, o.Once, o.Progress = address, count, true, &progress
			}), &out)
			if err != nil || report.URL != want {
				t.Fatalf("report %+v, %v, want %s", report, err, want)
			}
			if err := report.WriteText(&text); err != nil {
				t.Error(err)
			}
			encoded, err := json.Marshal(report)
			if all := out.String() + progress.String() + text.String() + string(encoded); err != nil || strings.Contains(all, "hunter2") || strings.Contains(all, "%68") {
				t.Errorf("%s shows:\n%s", address, all)
			}
		}
	}
	for _, address := range []string{"http://h:x/zego/callbacks/hunter2", "hunter2", "ftp://h/hunter2", "http://\x00/hunter2"} {
		if _, err := load.Run(t.Context(), options(func(o *load.Options) { o.URL = address }), io.Discard); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: error %v", address, err)
		}
	}
}

func TestBadOptions(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		change func(*load.Options)
		want   string
	}{
		{func(o *load.Options) { o.URL = "" }, "--url: want an address like http://localhost:8080/zego/callbacks"},
		{func(o *load.Options) { o.RoomID = "" }, "--room: found an empty name"},
		{func(o *load.Options) { o.Count = 0 }, "--count: found 0, want at least 1"},
		{func(o *load.Options) { o.Rooms = -1 }, "--rooms: found -1, want at least 1"},
		{func(o *load.Options) { o.Parallel = 1e6 }, "--parallel: found 1000000, want 1 to 65535"},
		{func(o *load.Options) { o.Rate = -1 }, "--rate: found -1, want 0 (no rate) to 1000000 per second"},
		{func(o *load.Options) { o.Rate = nan }, "--rate: found NaN, want"},
		{func(o *load.Options) { o.Rate = math.Inf(1) }, "--rate: found +Inf, want"},
		{func(o *load.Options) { o.Burst = -1 }, "--burst: found -1, want"},
		{func(o *load.Options) { o.Burst = 5 }, "--burst: found 5 without --burst-every, want both or neither"},
		{func(o *load.Options) { o.BurstEvery = 5 }, "--burst-every: found 5ns without --burst, want both or neither"},
		{func(o *load.Options) { o.Burst, o.BurstEvery = 5, -1 }, "--burst-every: found -1ns, want more than 0s"},
		{func(o *load.Options) { o.Spread = -1 }, "--spread: found -1ns, want 0s (none) or more"},
		{func(o *load.Options) { o.Timeout = 0 }, "--timeout: found 0s, want more than 0s"},
		{func(o *load.Options) { o.Duplicates = 1.5 }, "--duplicates: found 1.5, want 0 to 1"},
		{func(o *load.Options) { o.Duplicates = nan }, "--duplicates: found NaN, want 0 to 1"},
		{func(o *load.Options) { o.BadSignatures = -0.1 }, "--bad-signatures: found -0.1, want 0 to 1"},
		{func(o *load.Options) { o.Resign = 2 }, "--resign: found 2, want 0 to 1"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			report, err := load.Run(t.Context(), options(tt.change), io.Discard)
			if report != nil || err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("report %+v, error %v, want %s", report, err, tt.want)
			}
		})
	}
}

// A long run reports its progress from time to time.
func TestProgress(t *testing.T) {
	var progress strings.Builder
	inBubble(t, options(func(o *load.Options) {
		o.Count, o.Rate, o.Seed, o.Progress = 30, 1, 9, &progress
	}), &far{answer: func(a arrival, nth int) (int, string) {
		if a.RoomSessionID%10 == 9 { // lost: 109, 119 and 129, none of them at a tick
			return 503, ""
		}
		return 200, ""
	}}, func(_ *load.Report, err error, out string) {
		if err != nil || out != "" {
			t.Errorf("%v, output:\n%s", err, out)
		}
	})
	lines := strings.Split(progress.String(), "\n")
	if lines[0] != "sending 30 sessions to http://closeout.test/zego/callbacks, seed 9" {
		t.Errorf("first line: %s", lines[0])
	}
	// After 80 s, 109 is lost since 71 s, and 119 and 129 wait for their last attempt.
	if want := "28 of 30 sessions: 27 acknowledged, 2 retrying, 1 lost"; len(lines) != 11 || lines[8] != want {
		t.Errorf("found %d lines, want %q as the ninth of ten:\n%s", len(lines)-1, want, progress.String())
	}
}

// The text of the report is readable, with the right numbers in the right places.
func TestReportText(t *testing.T) {
	p := load.Percentiles{Count: 4, P50: 0.123, P90: 9.994, P95: 10.4, P99: 101, P999: 1234, Max: 98765}
	tests := []struct {
		name   string
		report load.Report
		want   string
	}{
		{"all of it", load.Report{
			Seed: 1 << 63, URL: "http://localhost:8080/zego/callbacks", Duration: 61.234, Count: 5000, Sessions: 4003,
			Acknowledged: 4000, FirstAttempt: 3000, LaterAttempt: 999, ByDuplicate: 1, Lost: 2, Undecided: 1, Attempts: 4500,
			Answers: map[string]int64{"duplicate": 5, "started": 3995}, Failures: map[string]int64{"503": 7, "timeout": 7, "404": 9},
			Duplicates: load.Duplicates{Sent: 6, Acknowledged: 5, Lost: 1}, BadlySigned: load.BadlySigned{Sent: 9, Refused: 6, Accepted: 2},
			OfferedRate: 500, AcknowledgedRate: 123.456, Latency: load.Latency{Acknowledged: p, All: p, Session: p, Waited: p},
		}, `sent to           http://localhost:8080/zego/callbacks
seed              9223372036854775808
sessions          4003 of 5000 in 61.2 s
  acknowledged    4000: 3000 at the first attempt, 999 at a later one, 1 by the duplicate alone
  lost            2
  undecided       1
duplicates        6: 5 acknowledged, 1 lost
badly signed      9: 6 refused, 2 accepted, 1 without either
attempts          4500
  answers         3995 started, 5 duplicate
  failures        9 404, 7 503, 7 timeout
sessions offered  500/s
  acknowledged    123/s

ms                                  count       p50       p90       p95       p99     p99.9       max
attempts that were acknowledged         4      0.12      9.99      10.4       101      1234     98765
all attempts                            4      0.12      9.99      10.4       101      1234     98765
  of it waiting to be sent              4      0.12      9.99      10.4       101      1234     98765
sessions until acknowledged             4      0.12      9.99      10.4       101      1234     98765
`},
		{"the least", load.Report{URL: "http://h", Count: 2, Sessions: 2, Lost: 2, Attempts: 2}, `sent to           http://h
seed              0
sessions          2 in 0.00 s
  acknowledged    0: 0 at the first attempt, 0 at a later one
  lost            2
attempts          2
  answers         none
  failures        none
sessions offered  all at once
  acknowledged    0.00/s

ms                                  count       p50       p90       p95       p99     p99.9       max
attempts that were acknowledged         0      0.00      0.00      0.00      0.00      0.00      0.00
all attempts                            0      0.00      0.00      0.00      0.00      0.00      0.00
  of it waiting to be sent              0      0.00      0.00      0.00      0.00      0.00      0.00
sessions until acknowledged             0      0.00      0.00      0.00      0.00      0.00      0.00
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got strings.Builder
			if err := tt.report.WriteText(&got); err != nil || got.String() != tt.want {
				t.Errorf("error %v, got:\n%s\nwant:\n%s", err, got.String(), tt.want)
			}
		})
	}
}

// The report's JSON has no number that a float would round.
func TestReportJSON(t *testing.T) {
	inBubble(t, options(func(o *load.Options) { o.Seed = math.MaxUint64 }), &far{}, func(r *load.Report, err error, _ string) {
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"seed":"18446744073709551615"`, `"answers":{"started":1}`, `"failures":{}`, `"lost":0`, `"p99_9_ms":0`, `"offered_per_s":0`} {
			if !strings.Contains(string(encoded), want) {
				t.Errorf("no %s in %s", want, encoded)
			}
		}
	})
}
