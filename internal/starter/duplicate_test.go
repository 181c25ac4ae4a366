package starter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
)

// A second room_close with another room or time is answered as a duplicate and reported.
func TestContradictingCloseIsReported(t *testing.T) {
	for _, first := range []error{nil, errFull} { // started, or queued
		var lines bytes.Buffer
		var outcomes []string
		var contradicted []session.Session
		i := receiver(t, starter.Options{
			Temporal: &fake{answer: always(first)}, Log: slog.New(slog.NewTextHandler(&lines, nil)),
			Observe: func(outcome string) {
				if outcome == "contradicted" {
					outcomes = append(outcomes, outcome)
				}
			},
			Contradicted: func(_ context.Context, s session.Session) error { contradicted = append(contradicted, s); return nil },
		}, newInbox(t))
		other, later := callback(7), callback(7)
		other.RoomID = "attic"
		later.RoomCloseTime = later.RoomCloseTime.Add(time.Second)
		if _, err := i.Receive(t.Context(), callback(7)); err != nil {
			t.Fatal(err)
		}
		for n, c := range slices.Concat(slices.Repeat([]int{0}, 2), []int{1, 2}) {
			event := callback(7)
			switch c {
			case 1:
				event = other
			case 2:
				event = later
			}
			if r, err := i.Receive(t.Context(), event); err != nil || r.Status != webhook.Duplicate {
				t.Errorf("callback %d: %+v, %v", n, r, err)
			}
		}
		if len(outcomes) != 2 || len(contradicted) != 2 || contradicted[0].RoomID != "attic" || !contradicted[1].RoomCloseTime.Equal(later.RoomCloseTime) {
			t.Errorf("outcomes %v, contradicted %+v", outcomes, contradicted)
		}
		if n := strings.Count(lines.String(), "room_close contradicts first of its session"); n != 2 {
			t.Errorf("%d lines in %s", n, lines.String())
		}
	}
}

// If a contradiction can't be stored before ctx ends, Receive returns an error, so that ZEGO
// retries the callback.
func TestUnstoredContradictionIsNotAcknowledged(t *testing.T) {
	for name, first := range map[string]error{"started": nil, "queued": errFull} {
		i := receiver(t, starter.Options{
			Temporal: &fake{answer: always(first)}, Log: slog.New(slog.DiscardHandler),
			Contradicted: func(ctx context.Context, _ session.Session) error { <-ctx.Done(); return context.Cause(ctx) },
		}, newInbox(t))
		other := callback(7)
		other.RoomID = "attic"
		if _, err := i.Receive(t.Context(), callback(7)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if r, err := i.Receive(ctx, other); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// told answers DescribeWorkflowExecution with the memo of start options.
type told struct {
	client.StartWorkflowOptions
	data converter.DataConverter
}

func (r told) DescribeWorkflowExecution(context.Context, string, string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	memo := &common.Memo{Fields: map[string]*common.Payload{}}
	for name, value := range r.Memo {
		p, err := r.data.ToPayload(value)
		if err != nil {
			return nil, err
		}
		memo.Fields[name] = p
	}
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflow.WorkflowExecutionInfo{Status: enums.WORKFLOW_EXECUTION_STATUS_RUNNING, Memo: memo}}, nil
}

// After a restart, or in another process, the run's memo has the content of the first
// room_close.
func TestCloseThatContradictsAnotherProcessIsReported(t *testing.T) {
	plain := converter.GetDefaultDataConverter()
	zipped := converter.NewCodecDataConverter(plain, converter.NewZlibCodec(converter.ZlibCodecOptions{AlwaysEncode: true}))
	first := func(change func(*session.Session)) session.Session {
		s := session.Of(callback(7))
		change(&s)
		return s
	}
	for name, tt := range map[string]struct {
		first      session.Session
		data, with converter.DataConverter
		want       bool
	}{
		"the same":                   {first(func(*session.Session) {}), plain, nil, false},
		"another room":               {first(func(s *session.Session) { s.RoomID = "attic" }), plain, nil, true},
		"another time":               {first(func(s *session.Session) { s.RoomCloseTime = s.RoomCloseTime.Add(time.Millisecond) }), plain, nil, true},
		"found gone":                 {first(func(s *session.Session) { s.RoomCloseTime, s.Reconciled = s.RoomCloseTime.Add(time.Hour), true }), plain, nil, false},
		"found gone, another room":   {first(func(s *session.Session) { s.RoomID, s.Reconciled = "attic", true }), plain, nil, true},
		"encoded":                    {first(func(s *session.Session) { s.RoomID = "attic" }), zipped, zipped, true},
		"encoded, and we lack a key": {first(func(s *session.Session) { s.RoomID = "attic" }), zipped, nil, false},
	} {
		var mu sync.Mutex
		var contradicted []session.Session
		i := receiver(t, starter.Options{
			Temporal: &fake{describer: told{workflows.StartOptions(tt.first, "q"), tt.data}, answer: always(exists)}, Data: tt.with,
			Contradicted: func(_ context.Context, s session.Session) error {
				mu.Lock()
				defer mu.Unlock()
				contradicted = append(contradicted, s)
				return nil
			},
		}, newInbox(t))
		if r, err := i.Receive(t.Context(), callback(7)); err != nil || r.Status != webhook.Duplicate {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		i.Wait()
		if len(contradicted) == 1 != tt.want || len(contradicted) > 1 || tt.want && contradicted[0].RoomSessionID != 7 {
			t.Errorf("%s: contradicted %+v, want %v", name, contradicted, tt.want)
		}
	}
}

// slowly answers DescribeWorkflowExecution only after more starts than there are concurrent
// checks.
type slowly struct {
	told
	started chan struct{}
}

func (s slowly) DescribeWorkflowExecution(ctx context.Context, id, run string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	select {
	case <-s.started:
		return s.told.DescribeWorkflowExecution(ctx, id, run)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// After an outage there are many duplicates, and each is compared.
func TestEveryDuplicateIsComparedWithItsRun(t *testing.T) {
	const n = 50
	s := session.Of(callback(7))
	s.RoomID = "attic"
	var contradicted atomic.Int32
	box := newInbox(t)
	started := make(chan struct{})
	i := receiver(t, starter.Options{
		Temporal: &fake{describer: slowly{told{workflows.StartOptions(s, "q"), converter.GetDefaultDataConverter()}, started}, answer: func(_ context.Context, n int, _ client.StartWorkflowOptions) error {
			if n == 20 {
				close(started)
			}
			return serviceerror.NewWorkflowExecutionAlreadyStarted("already", "", "")
		}}, Contradicted: func(context.Context, session.Session) error { contradicted.Add(1); return nil },
	}, box)
	for id := range uint64(n) {
		body, err := json.Marshal(session.Of(callback(id + 1)))
		if err != nil {
			t.Fatal(err)
		}
		put(t, box, session.Of(callback(id+1)).WorkflowID(), body)
	}
	ctx, stop := context.WithCancel(t.Context())
	relayed := make(chan struct{})
	go func() { defer close(relayed); i.Delivery.Relay(ctx) }()
	wait(t, "all are compared", func() bool { return contradicted.Load() == n })
	stop()
	<-relayed
	i.Wait()
}
