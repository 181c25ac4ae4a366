// Package recordings decides which recordings belong to a session, what to do with them and
// what to wait for. It does no I/O.
package recordings

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// slack is the maximum difference of the clocks of ZEGO's servers. A recording that starts
// between two sessions of a room belongs to one that is this near.
const slack = 10 * time.Second

// Of is the relation of a recording task to a session.
type Of int

const (
	Another   Of = iota // it belongs to another session, or to no known one
	Mine                // it belongs to the session
	Maybe               // unknown until its start is known
	Ambiguous           // it may belong to several sessions; an operator has to decide
)

// Match returns the relation of a recording task to the session s. It uses the first signal
// present: operator assignment, task name or upload folder, start time. lives are the
// sessions of the room. If the relation is ambiguous, candidates includes s.
func Match(s session.Session, lives []ledger.RoomLife, task ledger.RecordingTask) (of Of, candidates []uint64) {
	if task.Assigned {
		return mine(task.RoomSessionID == s.RoomSessionID), nil
	}
	for _, name := range named(s.AppID, task) {
		if name == s.RoomSessionID {
			return Mine, nil
		}
		// Any other number is part of a name.
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
	case len(task.Files) > 0: // and no callback will say when
		candidates = candidatesBefore(spans, task.First)
	case task.Uploaded: // nobody published
		return Another, nil
	default:
		if slices.Contains(candidatesBefore(spans, task.First), s.RoomSessionID) {
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

// MatchFile is [Match] for a file with only its start and its folder known.
func MatchFile(s session.Session, lives []ledger.RoomLife, began time.Time, folder string) (of Of, candidates []uint64) {
	u := url.URL{Path: "/" + folder}
	return Match(s, lives, ledger.RecordingTask{RoomID: s.RoomID, Files: []ledger.RecordedFile{{RecordedFile: zego.RecordedFile{Begin: began, URL: u.String()}}}})
}

func mine(yes bool) Of {
	if yes {
		return Mine
	}
	return Another
}

// named returns the sessions in whose folder "<appid>/<room_session_id>/" a task's files are.
func named(appID uint32, task ledger.RecordingTask) (sessions []uint64) {
	app := strconv.FormatUint(uint64(appID), 10)
	for _, f := range task.Files {
		parts := strings.Split(strings.TrimSuffix(Path(f.URL), "/"+f.FileID), "/")
		if n := len(parts); n >= 2 && parts[n-2] == app {
			if id, err := strconv.ParseUint(parts[n-1], 10, 64); err == nil {
				sessions = append(sessions, id)
			}
		}
	}
	return sessions
}

// Path returns the decoded path of a URL, or "".
func Path(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Path
}

// span is the time during which a session may have been open.
type span struct {
	session  uint64
	from, to time.Time // zero: unbounded
}

// with returns the lives, including s.
func with(s session.Session, lives []ledger.RoomLife) []ledger.RoomLife {
	lives = slices.Clone(lives)
	i := slices.IndexFunc(lives, func(l ledger.RoomLife) bool { return l.RoomSessionID == s.RoomSessionID })
	if i < 0 {
		i = len(lives)
		lives = append(lives, ledger.RoomLife{RoomSessionID: s.RoomSessionID})
	}
	lives[i].Closed = s.RoomCloseTime
	return lives
}

// spansOf returns the spans of a room's sessions. They bound each other, because a room has
// one session at a time.
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
			// A login is no bound, because an earlier one may be missing.
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

// At returns the sessions of a room that may have been open at t.
func At(lives []ledger.RoomLife, t time.Time) (sessions []uint64) { return at(spansOf(lives), t) }

// Candidates returns the closed sessions that a task may belong to.
func Candidates(appID uint32, lives []ledger.RoomLife, task ledger.RecordingTask) (sessions []uint64) {
	for _, l := range lives {
		if l.Closed.IsZero() {
			continue
		}
		s := session.Session{ID: session.ID{AppID: appID, RoomSessionID: l.RoomSessionID}, RoomID: task.RoomID, RoomCloseTime: l.Closed}
		if of, _ := Match(s, lives, task); of != Another {
			sessions = append(sessions, l.RoomSessionID)
		}
	}
	return sessions
}

// at returns the sessions that may have been open at t.
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

// candidatesBefore returns the sessions that were open at some point before t, when a
// recording was running. A recorder without a stream sends a callback twice a minute, so a
// session that closed long before t is no candidate.
func candidatesBefore(spans []span, t time.Time) (sessions []uint64) {
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

// Left returns how much longer ZEGO's backup storage keeps a file. Negative means that it is
// gone.
func Left(f ledger.RecordedFile, now time.Time) time.Duration {
	return f.ReportedAt.Add(zego.BackupKept).Sub(now)
}
