package starter

import (
	"context"
	"hash/fnv"
	"time"

	"go.temporal.io/api/workflow/v1"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/internal/recent"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

const (
	// remembered is the minimum number of acknowledged sessions that are recognized as
	// duplicates without a call to Temporal, where a repeated start costs a third of a
	// start. They take 5 MB.
	remembered = 100_000
	// maxChecks bounds how many runs are described at once. After an outage there are many
	// duplicates, and starts have priority.
	maxChecks = 8
	// checkTimeout bounds a check including its wait for other checks, and so the wait of a
	// stop.
	checkTimeout = 10 * time.Second
)

// Receiver receives each room_close and each callback of [Options].Events, and delivers it
// to a [Starter].
type Receiver struct {
	Delivery *delivery.Delivery[Item]
	starter  *Starter
	recent   *recent.Map[identity, closing]
	acted    *recent.Map[[32]byte, struct{}] // callbacks by app, event and key
}

// identity identifies a session without a pointer: see package recent.
type identity struct {
	app     uint32
	session uint64
}

// NewReceiver returns a Receiver that queues callbacks in box which s doesn't start at once.
// observe counts starts.
func NewReceiver(s *Starter, box delivery.Inbox, observe func(outcome string, relayed bool)) *Receiver {
	return &Receiver{
		Delivery: delivery.New(delivery.Options[Item]{
			Name: "Temporal", Sink: s, Inbox: box, Join: true, Yield: true, MaxFailures: 5, Log: s.Log, Observe: observe,
			// In benchmarks the server had about the same starts a second with four in flight
			// as with 16 and 64.
			MinInFlight: 4, MaxInFlight: 200,
			Size: func(item Item) int {
				if item.Callback == nil {
					return 1 << 10
				}
				return 1<<10 + 2*len(item.Callback.JSON) // the body, and an input made of it
			},
			Contradicted: func(ctx context.Context, kept, second Item) error {
				if kept.Session == nil || second.Session == nil {
					return nil
				}
				return s.compare(ctx, closingOf(*kept.Session), *second.Session)
			},
		}),
		starter: s, recent: recent.New[identity, closing](remembered), acted: recent.New[[32]byte, struct{}](remembered),
	}
}

// Wait waits for starts that outlast the answers to their callbacks. Close the inbox only
// after it.
func (r *Receiver) Wait() {
	r.Delivery.Wait()
	r.starter.checking.Wait()
}

// Receive returns after Temporal has a Workflow for the session, or the inbox has the
// callback.
func (r *Receiver) Receive(ctx context.Context, c *zego.RoomClose) (webhook.Receipt, error) {
	s := session.Of(c)
	receipt := webhook.Receipt{Status: webhook.Duplicate, WorkflowID: s.WorkflowID()}
	id := identity{s.AppID, s.RoomSessionID}
	if first, found := r.recent.Get(id); found {
		return receipt, r.starter.compare(ctx, first, s)
	}
	result, err := r.Delivery.Deliver(ctx, Item{Session: &s})
	if err != nil {
		return webhook.Receipt{}, err
	}
	// Another callback of the session may have come in the meantime.
	if first, found := r.recent.Add(id, closingOf(s)); found {
		if err := r.starter.compare(ctx, first, s); err != nil {
			return webhook.Receipt{}, err
		}
	}
	switch {
	case result.Outcome == "":
		receipt.Status = webhook.Queued
	case !result.Joined:
		receipt.Status = webhook.Status(result.Outcome)
	}
	return receipt, nil
}

// closing holds the content of a room_close without a pointer: see package recent.
type closing struct {
	room uint64 // hash of the room's name
	time int64  // Unix milliseconds
}

func closingOf(s session.Session) closing {
	reported := s.RoomCloseTime
	if !s.ReportedCloseTime.IsZero() {
		reported = s.ReportedCloseTime
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.RoomID))
	return closing{h.Sum64(), reported.UnixMilli()}
}

// compare warns if two room_close callbacks of a session differ in room or time. One of them
// belongs to another session, for example because its number was rounded, and that session
// has no run. compare stores the second callback, and returns an error if it can't before
// ctx ends.
func (s *Starter) compare(ctx context.Context, first closing, second session.Session) error {
	other := closingOf(second)
	if first == other {
		return nil
	}
	s.Observe("contradicted")
	s.Log.Warn("room_close contradicts first of its session", "workflow_id", second.WorkflowID(),
		"room_id", second.RoomID, "room_close_time", second.RoomCloseTime,
		"other_room", first.room != other.room, "first_room_close_time", time.UnixMilli(first.time).UTC(),
		"action", "check that nothing rounds room_session_id")
	if s.Contradicted == nil {
		return nil
	}
	return s.Contradicted(ctx, second)
}

// checkRun compares a duplicate with the run of its session, which another process may have
// started. It also reports a run that has ended without closing out its session, because
// Temporal refuses to start another.
func (s *Starter) checkRun(id string, session session.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	skipped := func(err error) {
		s.Log.Warn("duplicate not compared with its run", "workflow_id", id, "room_id", session.RoomID,
			"room_close_time", session.RoomCloseTime, "error", err)
	}
	select {
	case s.checks <- struct{}{}:
		defer func() { <-s.checks }()
	case <-ctx.Done():
		skipped(ctx.Err())
		return
	}
	answer, err := s.Temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		skipped(err)
		return
	}
	if first, ok := s.closingOfRun(answer.GetWorkflowExecutionInfo(), session); ok {
		_ = s.compare(ctx, first, session) // logged
	}
	if err := ended(answer, id); err != nil {
		s.Observe("ended")
		s.Log.Error("callback of a session whose run has ended without closing it out", "workflow_id", id, "error", err)
	}
}

// closingOfRun returns the content of the room_close that started a run, from the run's
// memo. It returns the second's time, so that only the rooms are compared, if the run was
// reconciled and its time is an estimate, or if the second's time is impossible.
func (s *Starter) closingOfRun(run *workflow.WorkflowExecutionInfo, second session.Session) (closing, bool) {
	memo := run.GetMemo().GetFields()
	text := func(name string) (value string) {
		if payload := memo[name]; payload != nil {
			_ = s.Data.FromPayload(payload, &value) // fails if its encryption key is missing
		}
		return value
	}
	room, closed := text("room_id"), text("room_close_time")
	if room == "" {
		return closing{}, false
	}
	first := closingOf(session.Session{RoomID: room})
	first.time = closingOf(second).time
	if t, err := time.Parse(time.RFC3339Nano, closed); err == nil && memo["reconciled"] == nil && second.ReportedCloseTime.IsZero() {
		first.time = t.UnixMilli()
	}
	return first, true
}
