// Package recordings tells which recordings are a session's, and whether they are
// all there. It does no I/O: what is known comes from the ledger.
package recordings

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/zego"
)

// slack is how far the clocks of ZEGO's servers may be apart: what begins in no
// life of a room is of the one that it is so near to.
const slack = 10 * time.Second

// Session is the session in question.
type Session struct {
	AppID         uint32
	RoomID        string
	RoomSessionID uint64
	Closed        time.Time
}

// Of is whose a recording is.
type Of int

// The answers.
const (
	// Another is that it is of another session, or of none that is known.
	Another Of = iota
	// Mine is that it is the session's.
	Mine
	// Maybe is that it may be: when it began isn't known yet.
	Maybe
	// Ambiguous is that it may be of several sessions, and that nothing to come will
	// tell.
	Ambiguous
)

// Whose tells whose a recording task is, by the first of these that is known: what
// a person said; what the app called it, or the folder that it had it uploaded to;
// when it began. Where it may be of several sessions, they are the candidates, the
// one in question among them. Lives are those of its room.
func Whose(s Session, lives []ledger.RoomLife, task ledger.RecordingTask) (of Of, candidates []uint64) {
	if task.Assigned {
		return mine(task.RoomSessionID == s.RoomSessionID), nil
	}
	for _, name := range named(s.AppID, task) {
		if name == s.RoomSessionID {
			return Mine, nil
		}
		// Otherwise it is only a number, of something else.
		if slices.ContainsFunc(lives, func(l ledger.RoomLife) bool { return name == l.RoomSessionID }) {
			return Another, nil
		}
	}
	if task.RoomID != s.RoomID {
		return Another, nil
	}
	spans := spansOf(with(s, lives))
	var began []time.Time
	for _, f := range task.Files {
		if !f.Begin.IsZero() {
			began = append(began, f.Begin)
		}
	}
	switch {
	case len(began) > 0:
		for _, t := range began {
			candidates = append(candidates, at(spans, t)...)
		}
	case len(task.Files) > 0: // and nobody will ever tell when
		candidates = until(spans, task.First)
	case task.Uploaded: // nobody published
		return Another, nil
	default:
		if slices.Contains(until(spans, task.First), s.RoomSessionID) {
			return Maybe, nil
		}
		return Another, nil
	}
	slices.Sort(candidates)
	candidates = slices.Compact(candidates)
	switch {
	case !slices.Contains(candidates, s.RoomSessionID):
		return Another, nil
	case len(candidates) > 1:
		return Ambiguous, candidates
	}
	return Mine, nil
}

// Began tells whose a file is of which only is known that it is of the room, when
// it began, and the folder that it is in.
func Began(s Session, lives []ledger.RoomLife, began time.Time, folder string) (of Of, candidates []uint64) {
	u := url.URL{Path: "/" + folder}
	return Whose(s, lives, ledger.RecordingTask{RoomID: s.RoomID, Files: []ledger.RecordedFile{{RecordedFile: zego.RecordedFile{Begin: began, URL: u.String()}}}})
}

func mine(yes bool) Of {
	if yes {
		return Mine
	}
	return Another
}

// named gives the sessions that a task names, if it does: by its ClientTaskId, and
// after that by the folder "<appid>/<room_session_id>/" that its files are in.
func named(appID uint32, task ledger.RecordingTask) (sessions []uint64) {
	add := func(digits string) {
		if id, err := strconv.ParseUint(digits, 10, 64); err == nil {
			sessions = append(sessions, id)
		}
	}
	add(task.ClientTaskID)
	app := strconv.FormatUint(uint64(appID), 10)
	for _, f := range task.Files {
		parts := strings.Split(strings.TrimSuffix(Path(f.URL), "/"+f.FileID), "/")
		if n := len(parts); n >= 2 && parts[n-2] == app {
			add(parts[n-1])
		}
	}
	return sessions
}

// Path is the path of a URL, without what is encoded in it, or empty.
func Path(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Path
}

// span is a life of a room, and what is known of its ends.
type span struct {
	session  uint64
	from, to time.Time // zero: there is no bound
}

// with gives the lives with what is known of the session.
func with(s Session, lives []ledger.RoomLife) []ledger.RoomLife {
	lives = slices.Clone(lives)
	i := slices.IndexFunc(lives, func(l ledger.RoomLife) bool { return l.RoomSessionID == s.RoomSessionID })
	if i < 0 {
		i = len(lives)
		lives = append(lives, ledger.RoomLife{RoomSessionID: s.RoomSessionID})
	}
	lives[i].Closed = s.Closed
	return lives
}

// spansOf bounds the lives by what is known of them, and of each other: a room has
// one life at a time.
func spansOf(lives []ledger.RoomLife) []span {
	lives = slices.Clone(lives)
	seen := func(l ledger.RoomLife) time.Time { return first(l.Created, l.Login, l.Closed) }
	slices.SortFunc(lives, func(a, b ledger.RoomLife) int {
		return cmp.Or(seen(a).Compare(seen(b)), cmp.Compare(a.RoomSessionID, b.RoomSessionID))
	})
	spans := make([]span, len(lives))
	for i, l := range lives {
		spans[i] = span{l.RoomSessionID, l.Created, l.Closed}
		if i > 0 && l.Created.IsZero() {
			// A login may have been lost, so that it is no bound.
			before := lives[i-1]
			spans[i].from = first(before.Closed, before.Created, before.Login)
		}
	}
	for i := range spans {
		if spans[i].to.IsZero() && i+1 < len(lives) {
			spans[i].to = seen(lives[i+1])
		}
	}
	return spans
}

func first(times ...time.Time) time.Time {
	for _, t := range times {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// At gives those of a room's lives in which something may have begun at that time.
func At(lives []ledger.RoomLife, t time.Time) (sessions []uint64) { return at(spansOf(lives), t) }

// Concerned gives the sessions that have to know of a task, of those of which it is
// known that they have ended.
func Concerned(appID uint32, lives []ledger.RoomLife, task ledger.RecordingTask) (sessions []uint64) {
	for _, l := range lives {
		if l.Closed.IsZero() {
			continue
		}
		s := Session{appID, task.RoomID, l.RoomSessionID, l.Closed}
		if of, _ := Whose(s, lives, task); of != Another {
			sessions = append(sessions, l.RoomSessionID)
		}
	}
	return sessions
}

// at gives the sessions in which something may have begun at that time.
func at(spans []span, t time.Time) (sessions []uint64) {
	within := func(slack time.Duration) (sessions []uint64) {
		for _, s := range spans {
			if (s.from.IsZero() || !t.Before(s.from.Add(-slack))) && (s.to.IsZero() || !t.After(s.to.Add(slack))) {
				sessions = append(sessions, s.session)
			}
		}
		return sessions
	}
	if sessions = within(0); len(sessions) == 0 {
		sessions = within(slack)
	}
	return sessions
}

// until gives the sessions in which something may have begun of which is known that
// it had by that time. A recorder without a stream says so twice a minute: one that
// wasn't heard of for so long after the room had closed, and until the room was
// there again, is of no life before.
func until(spans []span, t time.Time) (sessions []uint64) {
	const heard = 2 * time.Minute
	for i, s := range spans {
		if !s.from.IsZero() && t.Before(s.from.Add(-slack)) {
			continue
		}
		next := i+1 < len(spans) && !spans[i+1].from.After(t)
		if next && !s.to.IsZero() && t.After(s.to.Add(heard)) {
			continue
		}
		sessions = append(sessions, s.session)
	}
	return sessions
}

// Left is how much longer ZEGO's backup storage keeps a file; less than nothing if
// it is gone.
func Left(f ledger.RecordedFile, now time.Time) time.Duration {
	return f.Told.Add(zego.BackupKept).Sub(now)
}
