package recordings_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// at returns the given minute after noon.
func at(minute float64) time.Time {
	return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).Add(time.Duration(minute * float64(time.Minute)))
}

var none time.Time

// task returns a task of app 7 in room "r", with files that begin at the given times.
func task(change func(*ledger.RecordingTask), begins ...time.Time) ledger.RecordingTask {
	t := ledger.RecordingTask{AppID: 7, TaskID: "T", RoomID: "r", Uploaded: true, First: at(100), Last: at(100)}
	for i, b := range begins {
		t.Files = append(t.Files, ledger.RecordedFile{RecordedFile: zego.RecordedFile{FileID: fmt.Sprint("f", i), Begin: b}})
	}
	if change != nil {
		change(&t)
	}
	return t
}

func TestMatch(t *testing.T) {
	const (
		mine, another, maybe, ambiguous = recordings.Mine, recordings.Another, recordings.Maybe, recordings.Ambiguous
	)
	life := func(id uint64, created, login, closed time.Time) ledger.RoomLife {
		return ledger.RoomLife{RoomSessionID: id, Created: created, Login: login, Closed: closed}
	}
	known := []ledger.RoomLife{life(1, at(0), at(0), at(10)), life(2, at(20), at(20), at(30)), life(3, at(40), at(40), none)}
	closes := []ledger.RoomLife{life(1, none, none, at(10)), life(2, none, none, at(30))}
	open := []ledger.RoomLife{life(1, at(0), none, none), life(2, none, none, at(30))}
	uploading := func(first float64) func(*ledger.RecordingTask) {
		return func(t *ledger.RecordingTask) { t.Uploaded, t.First = false, at(first) }
	}
	url := func(u string) func(*ledger.RecordingTask) {
		return func(t *ledger.RecordingTask) { t.Files[0].URL = u }
	}
	tests := []struct {
		name       string
		lives      []ledger.RoomLife
		task       ledger.RecordingTask
		want       recordings.Of // for session 2, which closes at 30
		candidates []uint64
	}{
		{"within its life", known, task(nil, at(25)), mine, nil},
		{"at its begin", known, task(nil, at(20)), mine, nil},
		{"at its end", known, task(nil, at(30)), mine, nil},
		{"by a clock that is a little off", known, task(nil, at(19.9)), mine, nil},
		{"in the life before", known, task(nil, at(5)), another, nil},
		{"in the life after", known, task(nil, at(45)), another, nil},
		{"in none", known, task(nil, at(15)), another, nil},
		{"long ago", known, task(nil, at(-500)), another, nil},
		{"of another room", known, task(func(t *ledger.RecordingTask) { t.RoomID = "R" }, at(25)), another, nil},
		{"through two lives", known, task(nil, at(5), at(25)), ambiguous, []uint64{1, 2}},
		{"through two other lives", known, task(nil, at(5), at(45)), another, nil},
		{"without a begin, and told in a later life", known, task(nil, none), another, nil},
		{"without a begin, and told soon after its life", []ledger.RoomLife{life(2, at(20), none, at(30)), life(3, at(31), none, none)},
			task(func(t *ledger.RecordingTask) { t.First = at(31.5) }, none), ambiguous, []uint64{2, 3}},
		{"without a begin, of the only one", known[1:2], task(nil, none), mine, nil},
		{"nobody published", known, task(nil), another, nil},

		{"only ends are known", closes, task(nil, at(25)), mine, nil},
		{"only ends are known, before", closes, task(nil, at(5)), another, nil},
		{"only its end is known", closes[1:], task(nil, at(-50)), mine, nil},
		{"nothing is known but by the run", nil, task(nil, at(29)), mine, nil},
		{"after its end", closes, task(nil, at(31)), another, nil},
		{"the end of the other isn't known", open, task(nil, at(25)), ambiguous, []uint64{1, 2}},
		{"the first login was lost", []ledger.RoomLife{life(1, at(0), none, at(10)), life(2, none, at(28), at(30))}, task(nil, at(25)), mine, nil},
		{"two at the seam", []ledger.RoomLife{life(1, at(0), none, at(20)), life(2, at(20), none, at(30))}, task(nil, at(20)), ambiguous, []uint64{1, 2}},
		{"two at a seam that gapes", []ledger.RoomLife{life(1, at(0), none, at(20)), life(2, at(20.2), none, at(30))}, task(nil, at(20.1)), ambiguous, []uint64{1, 2}},

		{"it goes on", known, task(uploading(25)), maybe, nil},
		{"it was heard of before", known, task(uploading(15)), another, nil},
		{"it was heard of soon after", known, task(uploading(31)), maybe, nil},
		{"it was heard of in the next life", known, task(uploading(41)), another, nil},
		{"it was heard of late, and nobody came after", known[:2], task(uploading(60)), maybe, nil},
		{"it goes on, and began before", known, task(uploading(25), at(5)), another, nil},

		{"by its folder", known, task(url("https://bucket.example/7/2/f0?sig=1"), at(5)), mine, nil},
		{"by its folder below others", known, task(url("https://example/bucket/zego/7/2/f0"), at(5)), mine, nil},
		{"by the folder of another", known, task(url("https://bucket.example/7/1/f0"), at(25)), another, nil},
		{"by the folder of another app", known, task(url("https://bucket.example/8/2/f0"), at(5)), another, nil},
		{"by a folder that is a date", known, task(url("https://bucket.example/7/20261123/f0"), at(25)), mine, nil},
		{"by a person, against its folder and its room", known, task(func(t *ledger.RecordingTask) {
			url("https://bucket.example/7/1/f0")(t)
			t.Assigned, t.RoomSessionID, t.RoomID = true, 2, "R"
		}, at(5)), mine, nil},
		{"by a person, of another", known, task(func(t *ledger.RecordingTask) { t.Assigned, t.RoomSessionID = true, 0 }, at(25)), another, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := session.Session{ID: session.ID{AppID: 7, RoomSessionID: 2}, RoomID: "r", RoomCloseTime: at(30)}
			got, candidates := recordings.Match(s, test.lives, test.task)
			if got != test.want || !slices.Equal(candidates, test.candidates) {
				t.Errorf("got %v %v, want %v %v", got, candidates, test.want, test.candidates)
			}
		})
	}
}

// Whichever facts are missing about a room's sessions, no recording goes to a wrong session or to
// two, and its own session never rules it out.
func TestNoRecordingIsGuessed(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for range 20000 {
		var truth, known []ledger.RoomLife
		clock := 0.0
		for id := range uint64(1 + random.IntN(5)) {
			clock += 1 + random.Float64()*30 // the gaps are wide enough to tell sessions apart
			created := at(clock)
			clock += random.Float64() * 60
			l := ledger.RoomLife{RoomSessionID: id, Created: created, Login: created.Add(time.Duration(random.IntN(1000)) * time.Millisecond), Closed: at(clock)}
			if l.Login.After(l.Closed) {
				l.Login = l.Closed
			}
			truth = append(truth, l)
			switch random.IntN(6) { // the facts that the ledger lacks
			case 0:
				l.Created = none
			case 1:
				l.Closed = none
			case 2:
				l.Login, l.Closed = none, none
			case 3:
				l.Created, l.Login = none, none
			case 4:
				l.Login = none
			}
			known = append(known, l)
		}
		of := truth[random.IntN(len(truth))]
		begins := []time.Time{of.Created.Add(time.Duration(random.Float64() * float64(of.Closed.Sub(of.Created))))}
		recorded := task(nil, begins...)
		takers := 0
		for _, l := range truth {
			s := session.Session{ID: session.ID{AppID: 7, RoomSessionID: l.RoomSessionID}, RoomID: "r", RoomCloseTime: l.Closed}
			got, candidates := recordings.Match(s, known, recorded)
			if got == recordings.Mine {
				takers++
			}
			switch {
			case got == recordings.Mine && l.RoomSessionID != of.RoomSessionID,
				got == recordings.Another && l.RoomSessionID == of.RoomSessionID,
				got == recordings.Ambiguous && !slices.Contains(candidates, of.RoomSessionID):
				t.Fatalf("seed %d: %v of %d, %v\nrecording of %+v begins %v\nknown %+v", seed, got, l.RoomSessionID, candidates, of, begins, known)
			}
		}
		if takers > 1 {
			t.Fatalf("seed %d: %d sessions take it", seed, takers)
		}
	}
}

func TestCandidates(t *testing.T) {
	lives := []ledger.RoomLife{{RoomSessionID: 1, Created: at(0), Closed: at(10)}, {RoomSessionID: 2, Created: at(20), Closed: at(30)}, {RoomSessionID: 3, Created: at(40)}}
	for _, test := range []struct {
		task ledger.RecordingTask
		want []uint64
	}{
		{task(nil, at(25)), []uint64{2}},
		{task(nil, at(5), at(25)), []uint64{1, 2}},
		{task(nil, at(45)), nil},
	} {
		if got := recordings.Candidates(7, lives, test.task); !slices.Equal(got, test.want) {
			t.Errorf("got %v, want %v", got, test.want)
		}
	}
}

func TestPrefix(t *testing.T) {
	s := session.Session{ID: session.ID{AppID: 7, RoomSessionID: 18446744073709551615}, RoomID: "a/b"}
	for _, test := range []struct {
		text, want        string
		ofRoom, ofSession bool
	}{
		{recordings.DefaultPrefix, "7/18446744073709551615/", true, true},
		{"", "", false, false},
		{"/", "", false, false},
		{"zego/", "zego/", false, false},
		{"zego/{{.room_id}}/", "zego/a/b/", true, false},
		{"zego/{{.room_id}}", "zego/a/b", false, false}, // "a/b" is also the beginning of the folder of room "a/bc"
		{`{{slice .room_id 0 1}}/`, "a/", false, false},
		{"{{.room_id}}/{{.room_session_id}}/", "a/b/18446744073709551615/", true, true},
		{"{{.room_session_id}}", "18446744073709551615", false, false}, // also the beginning of longer IDs
	} {
		p, err := recordings.ParsePrefix(test.text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Of(s); err != nil || got != (recordings.Place{Prefix: test.want, OfRoom: test.ofRoom, OfSession: test.ofSession}) {
			t.Errorf("%s: %+v, %v", test.text, got, err)
		}
	}
	if p, err := recordings.ParsePrefix("{{slice .room_id 0 5}}/"); err != nil {
		t.Error(err)
	} else if _, err := p.Of(s); err == nil {
		t.Error("want an error for a room whose name is too short")
	}
	for _, text := range []string{"{{", "{{.session}}", "{{.RoomID}}/"} {
		if _, err := recordings.ParsePrefix(text); err == nil {
			t.Errorf("%s: want an error", text)
		}
	}
}
