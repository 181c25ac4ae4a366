package repair

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

// Temporal lists runs, and has their histories. A [client.Client] is one.
type Temporal interface {
	ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error)
	Histories
}

// Witness finds out whether a ledger was restored from a copy: by the looks that this
// process has seen, and by bills that runs have made and the ledger doesn't have.
type Witness struct {
	// Temporal has the runs of the task queue.
	Temporal  Temporal
	TaskQueue string
	// Data reads what Activities returned.
	Data converter.DataConverter
	// Ledger is the one that workers write to.
	Ledger *ledger.Ledger
	// Log gets what operators should know.
	Log *slog.Logger

	mu    sync.Mutex
	seen  int64     // the newest look
	asked time.Time // when Temporal was asked
}

const (
	// confirmFor is for how long Temporal isn't asked again ahead of a bill.
	confirmFor = 30 * time.Second
	// recentRuns is how many runs are compared with the ledger.
	recentRuns = 20
)

// Lost returns what the ledger has lost and doesn't know of; nil if it has lost
// nothing. It changes nothing.
func (w *Witness) Lost(ctx context.Context) (*ledger.Loss, error) {
	_, loss, err := w.lost(ctx, 0)
	return loss, err
}

// Confirm makes sure that what the ledger has lost is stored in it, ahead of a bill.
func (w *Witness) Confirm(ctx context.Context) error { return w.confirm(ctx, confirmFor) }

// ConfirmLook is [Witness.Confirm] ahead of a look. It asks Temporal only once, as the
// process starts: an idle worker asks it nothing.
func (w *Witness) ConfirmLook(ctx context.Context) error { return w.confirm(ctx, math.MaxInt64) }

func (w *Witness) confirm(ctx context.Context, within time.Duration) error {
	last, loss, err := w.lost(ctx, within)
	if err != nil || loss == nil {
		return err
	}
	w.mu.Lock()
	seen := w.seen
	w.mu.Unlock()
	if loss, err = w.Ledger.NoteLoss(ctx, last, loss.From, seen); err != nil || loss == nil {
		return err
	}
	w.Log.Error("ledger was restored from a copy and has lost callbacks; see docs/operations.md, and run closeout repair", "from", loss.From, "to", loss.To)
	return nil
}

// lost compares the ledger with what this process has seen, and with Temporal unless it
// was asked within that time.
func (w *Witness) lost(ctx context.Context, within time.Duration) (last ledger.Look, loss *ledger.Loss, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, err = w.Ledger.LastLook(ctx); err != nil {
		return last, nil, err
	}
	if last.Number < w.seen {
		return last, &ledger.Loss{From: last.At, To: time.Now().UTC()}, nil
	}
	w.seen = last.Number
	if !w.asked.IsZero() && time.Since(w.asked) < within {
		return last, nil, nil
	}
	missing, err := w.missing(ctx)
	if err != nil {
		return last, nil, err
	}
	w.asked = time.Now()
	if missing == nil {
		return last, nil, nil
	}
	loss = &ledger.Loss{From: last.At, To: time.Now().UTC()}
	if missing.MadeAt.Before(loss.From) { // somebody has looked since it was restored
		loss.From = missing.MadeAt
	}
	return last, loss, nil
}

// missing returns a bill that one of the last runs has made and the ledger doesn't
// have, unless it is known to be lost.
func (w *Witness) missing(ctx context.Context) (first *ledger.MadeBill, err error) {
	answer, err := w.Temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: recentRuns,
		Query: fmt.Sprintf("TaskQueue = '%s' AND ExecutionStatus = 'Completed' AND WorkflowId STARTS_WITH '%s'",
			strings.ReplaceAll(w.TaskQueue, "'", "''"), strings.TrimSuffix(session.Session{}.WorkflowID(), "0-0"))})
	if err != nil {
		return nil, fmt.Errorf("list the last runs: %w", err)
	}
	losses, err := w.Ledger.Losses(ctx)
	if err != nil {
		return nil, err
	}
	for _, run := range answer.GetExecutions() {
		id := run.GetExecution().GetWorkflowId()
		parsed, err := session.ParseWorkflowID(id)
		if err != nil {
			continue // somebody else's
		}
		if _, err := w.Ledger.Bill(ctx, parsed.AppID, parsed.RoomSessionID); !errors.Is(err, sql.ErrNoRows) {
			if err != nil {
				return nil, err
			}
			continue
		}
		made, err := Bill(ctx, w.Temporal, w.Data, id, run.GetExecution().GetRunId())
		if err != nil {
			return nil, err
		}
		known := func(l ledger.Loss) bool { return made.MadeAt.Before(l.To) }
		if made != nil && !slices.ContainsFunc(losses, known) && (first == nil || made.MadeAt.Before(first.MadeAt)) {
			first = made
		}
	}
	return first, nil
}
