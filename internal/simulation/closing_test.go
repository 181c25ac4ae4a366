package simulation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// closing counts what ZEGO answers about sessions without a room_close.
type closing struct {
	k       *worker
	api     http.RoundTripper
	overdue map[string]session.Session // without their end, by Workflow ID
	last    map[string]uint64          // newest session, by room
	asked   map[string]bool            // rooms that ZEGO has answered about in this round
	answers map[string]int             // rounds in a row with an answer that the session is gone, by Workflow ID
}

// newClosing finds the sessions that have neither a run nor a room_close that is refused.
func (k *worker) newClosing(api *zegofake.API) *closing {
	c := &closing{k: k, api: inProcess{api}, overdue: map[string]session.Session{}, last: map[string]uint64{}, answers: map[string]int{}}
	for _, e := range k.events {
		if e.Recording != nil {
			continue
		}
		c.last[e.RoomID] = max(c.last[e.RoomID], e.RoomSessionID)
		if id := e.ID.WorkflowID(); len(k.w.temporal.runs[id]) == 0 && !k.w.refused[id] {
			c.overdue[id] = session.Session{ID: e.ID, RoomID: e.RoomID}
		}
	}
	return c
}

// failures returns a function that lets calls fail: in some seeds most of them, and in others all
// that ask about users.
func (k *worker) failures() func(url.Values) *zegofake.Failure {
	calls, rate, never := 0, pick(k.w.chance("zego fails"), []int{4, 8, 12}), k.w.chance("never lists").IntN(3) == 0
	return func(q url.Values) *zegofake.Failure {
		if never && q.Get("Action") != "DescribeUserNum" {
			return &zegofake.Failure{Status: http.StatusServiceUnavailable, Body: "busy"}
		}
		calls++
		switch k.w.chance("zego", calls).IntN(rate) {
		case 0:
			return &zegofake.Failure{Status: http.StatusServiceUnavailable, Body: "busy"}
		case 1:
			return &zegofake.Failure{Hang: true}
		case 2:
			return &zegofake.Failure{Partial: true}
		}
		return nil
	}
}

// RoundTrip implements [http.RoundTripper].
func (c *closing) RoundTrip(r *http.Request) (*http.Response, error) {
	action := r.URL.Query().Get("Action")
	answer, err := c.api.RoundTrip(r)
	if err != nil {
		c.k.w.note(nil, "ZEGO's API", action, "", "hangs")
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	c.k.w.note(nil, "ZEGO's API", action, string(bytes.TrimSpace(body)), answer.Status)
	answer.Body = io.NopCloser(bytes.NewReader(body))
	var counts struct {
		Data struct {
			UserCountList []struct {
				RoomID    string `json:"RoomId"`
				UserCount int
			}
		}
	}
	if err != nil || answer.StatusCode != http.StatusOK || json.Unmarshal(body, &counts) != nil {
		return answer, err
	}
	for _, room := range counts.Data.UserCountList {
		for id, s := range c.overdue {
			switch {
			case s.RoomID != room.RoomID:
			case room.UserCount > 0 && s.RoomSessionID == c.last[s.RoomID]:
				if c.k.w.limits == usual { // otherwise the question may be another session's, on another page
					c.answers[id] = 0
				}
			case !c.asked[s.RoomID]:
				c.answers[id]++
			}
		}
		c.asked[room.RoomID] = true
	}
	return answer, nil
}

// check checks a session that is closed out.
func (c *closing) check(s session.Session) {
	w, id := c.k.w, s.WorkflowID()
	if c.answers[id] < reconcile.Answers {
		w.failf("session %d is closed out after %d answers that it is gone, want %d", sessionOf(s.RoomSessionID), c.answers[id], reconcile.Answers)
	}
	if want := c.k.lastTime(s.ID); !s.Reconciled || !s.RoomCloseTime.Equal(want) {
		w.failf("session %d is closed out with the end %v and Reconciled %v, want %v", sessionOf(s.RoomSessionID), s.RoomCloseTime, s.Reconciled, want)
	}
}

// lastTime returns the latest time in the callbacks of a session. If they contradict each other,
// the earliest creation and logins count, and the latest logouts.
func (k *worker) lastTime(id session.ID) (last time.Time) {
	first := map[string]time.Time{} // creation and logins, by stay
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.events {
		if e.ID != id {
			continue
		}
		begin := e.Login
		if e.Event == zego.EventRoomCreate {
			begin = e.Create
		}
		if old, ok := first[e.Stay]; !begin.IsZero() && (!ok || begin.Before(old)) {
			first[e.Stay] = begin
		}
		if e.Logout.After(last) {
			last = e.Logout
		}
	}
	for _, t := range first {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// recordBetween records a callback of some sessions that are not closed out yet, so that ZEGO's
// answers until now don't count.
func (c *closing) recordBetween(ctx context.Context, round int) error {
	for s := range 4 {
		id := session.ID{AppID: app, RoomSessionID: uint64(firstSession + s)}
		overdue, ok := c.overdue[id.WorkflowID()]
		if !ok || len(c.k.w.temporal.runs[id.WorkflowID()]) > 0 || c.k.w.chance("between", s, round).IntN(6) > 0 {
			continue
		}
		c.answers[id.WorkflowID()] = 0
		begin := c.k.w.began.Add(time.Duration(round-30) * time.Minute).UTC()
		e := ledger.Event{ID: id, RoomID: overdue.RoomID, Event: zego.EventRoomLogout, Stay: fmt.Sprint("between-", round), User: "user-between", Login: begin,
			Logout: begin.Add(time.Minute), SentAt: time.Now(), SeenAt: time.Now()}
		if err := c.k.Record(ctx, []ledger.Event{e}); err != nil {
			return err
		}
	}
	return nil
}
