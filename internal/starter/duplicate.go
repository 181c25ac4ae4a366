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
	// remembered is how many acknowledged sessions, at least, are duplicates without
	// asking Temporal, where a repeated start costs a third of a start: 5 MB.
	remembered = 100_000
	// maxLooks is how many runs are described at once. After an outage many duplicates
	// come, and starts come first.
	maxLooks = 8
	// lookTimeout bounds a look with its wait for others, and so how long a stop waits.
	lookTimeout = 10 * time.Second
)

// Receiver receives each room_close and each callback of [Options].Events, and delivers it
// to a [Starter].
type Receiver struct {
	Delivery *delivery.Delivery[Item]
	starter  *Starter
	recent   *recent.Map[identity, closing]
	acted    *recent.Map[[32]byte, struct{}] // callbacks by app, event and key
}

// identity is a session without a pointer.
type identity struct {
	app     uint32
	session uint64
}

// NewReceiver returns a Receiver that queues what s doesn't start at once. Observe counts
// starts.
func NewReceiver(s *Starter, box delivery.Inbox, observe func(outcome string, relayed bool)) *Receiver {
	return &Receiver{
		Delivery: delivery.New(delivery.Options[Item]{
			Name: "Temporal", Sink: s, Inbox: box, Join: true, Yield: true, MaxFailures: 5, Log: s.Log, Observe: observe,
			// The server of the benchmarks took about as many starts a second with four in
			// flight as with 16, and not more with 64.
			MinInFlight: 4, MaxInFlight: 200,
			Size: func(item Item) int {
				if item.Callback == nil {
					return 1 << 10
				}
				return 1<<10 + 2*len(item.Callback.JSON) // the action's input is made of it
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

// Wait waits for starts that outlast the answers to their callbacks. The inbox must not be
// closed before.
func (r *Receiver) Wait() {
	r.Delivery.Wait()
	r.starter.looking.Wait()
}

// Receive returns once Temporal has a Workflow of the session, or the inbox its callback.
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
	// Another callback of the session may have come meanwhile.
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

// closing is what a room_close says, without a pointer.
type closing struct {
	room uint64 // a hash of its name
	time int64  // in Unix milliseconds
}

func closingOf(s session.Session) closing {
	told := s.RoomCloseTime
	if !s.CloseTimeTold.IsZero() {
		told = s.CloseTimeTold
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.RoomID))
	return closing{h.Sum64(), told.UnixMilli()}
}

// compare warns of a session that is closed twice, in another room or at another time: one
// of the two is another session, such as one with a rounded number, and has no run. It
// returns an error if that isn't stored before ctx ends.
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

// look compares a duplicate with the run of its session, which another process may have
// started. It also warns of a run that has ended without closing out its session: Temporal
// refuses to start another.
func (s *Starter) look(id string, session session.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	skipped := func(err error) {
		s.Log.Warn("duplicate not compared with its run", "workflow_id", id, "room_id", session.RoomID,
			"room_close_time", session.RoomCloseTime, "error", err)
	}
	select {
	case s.looks <- struct{}{}:
		defer func() { <-s.looks }()
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

// closingOfRun returns what the room_close that started a run says, from its memo. The
// close time of a session that was found gone is unknown, and one that can't be was
// replaced: there only the room is compared.
func (s *Starter) closingOfRun(run *workflow.WorkflowExecutionInfo, second session.Session) (closing, bool) {
	memo := run.GetMemo().GetFields()
	text := func(name string) (value string) {
		if payload := memo[name]; payload != nil {
			_ = s.Data.FromPayload(payload, &value) // encrypted with a key that we lack
		}
		return value
	}
	room, told := text("room_id"), text("room_close_time")
	if room == "" {
		return closing{}, false
	}
	first := closingOf(session.Session{RoomID: room})
	first.time = closingOf(second).time
	if t, err := time.Parse(time.RFC3339Nano, told); err == nil && memo["reconciled"] == nil && second.CloseTimeTold.IsZero() {
		first.time = t.UnixMilli()
	}
	return first, true
}
