package repair

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/outage"
	"github.com/closeouthq/closeout/session"
)

// Witness detects a ledger that was restored from a backup: by the number of looks, and by bills
// in runs that the ledger lacks.
type Witness struct {
	// Temporal, if set, lists the runs of the Task Queue. Without it, only looks count.
	Temporal  client.Client
	TaskQueue string
	// Data decodes the results of Activities.
	Data converter.DataConverter
	// Ledger is the workers' ledger.
	Ledger *ledger.Ledger
	// File, if set, stores the newest look across restarts.
	File string
	// Log is for operators.
	Log *slog.Logger

	mu    sync.Mutex
	read  bool        // the File
	seen  ledger.Look // the newest look
	asked time.Time   // time of the last request to Temporal
}

const (
	// confirmFor is how long an answer of Temporal is valid for the next bills.
	confirmFor = 30 * time.Second
	// recentRuns is the number of runs compared with the ledger.
	recentRuns = 20
	// lookTimeout bounds a look, because the ledger may hang.
	lookTimeout = 10 * time.Second
)

// Lost returns a loss that the ledger has not recorded yet, or nil. It changes nothing.
func (w *Witness) Lost(ctx context.Context) (*ledger.Loss, error) {
	_, loss, err := w.lost(ctx, 0)
	return loss, err
}

// Confirm records a loss in the ledger, if there is one. Call it before a bill.
func (w *Witness) Confirm(ctx context.Context) error { return w.confirm(ctx, confirmFor) }

// ConfirmLook is like [Witness.Confirm], but asks Temporal only once per process, so that an idle
// worker makes no requests. Call it before a look.
func (w *Witness) ConfirmLook(ctx context.Context) error { return w.confirm(ctx, math.MaxInt64) }

func (w *Witness) confirm(ctx context.Context, within time.Duration) error {
	last, loss, err := w.lost(ctx, within)
	if err != nil || loss == nil {
		return err
	}
	w.mu.Lock()
	seen := w.seen.Number
	w.mu.Unlock()
	if loss, err = w.Ledger.NoteLoss(ctx, last, loss.From, seen); err != nil || loss == nil {
		return err
	}
	w.Log.Error("ledger was restored from a copy and has lost callbacks; see docs/restore.md, and run closeout repair", "from", loss.From, "to", loss.To)
	return nil
}

// lost compares the ledger with the newest look, and with Temporal unless it was asked within the
// given time.
func (w *Witness) lost(ctx context.Context, within time.Duration) (last ledger.Look, loss *ledger.Loss, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, err = w.Ledger.LastLook(ctx); err != nil {
		return last, nil, err
	}
	w.recall()
	if last.Number < w.seen.Number || last.Number == w.seen.Number && !last.At.Equal(w.seen.At) {
		from := last.At
		if from.After(w.seen.At) { // another process has looked since the restore
			from = time.Unix(0, 0)
		}
		return last, &ledger.Loss{From: from.UTC(), To: time.Now().UTC()}, nil
	}
	w.remember(last)
	if w.Temporal == nil {
		return last, nil, nil
	}
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
	if missing.MadeAt.Before(loss.From) { // another process has looked since the restore
		loss.From = missing.MadeAt
	}
	return last, loss, nil
}

// look confirms, and then counts a look unless the ledger was restored meanwhile. The count lets
// webhooks notice a restore even if no worker has looked since the backup.
func (w *Witness) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if err := w.Confirm(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	look, err := w.Ledger.CountLook(ctx, time.Now(), w.seen.Number)
	if err == nil && look.Number > w.seen.Number {
		w.remember(look)
	}
	return err
}

// Watch calls look once per interval until ctx ends.
func (w *Witness) Watch(ctx context.Context, interval time.Duration) {
	trouble := outage.New(w.Log, "see whether the ledger is a copy", "it is tried again")
	for ctx.Err() == nil {
		err := w.look(ctx)
		if err == nil {
			trouble.End()
		} else if ctx.Err() == nil {
			trouble.Fail(err)
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
		}
	}
}

// recall reads File once. An unreadable one counts as missing.
func (w *Witness) recall() {
	if w.read || w.File == "" {
		return
	}
	w.read = true
	content, err := os.ReadFile(w.File)
	if err == nil {
		err = json.Unmarshal(content, &w.seen)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.Log.Warn("newest look into the ledger not known", "file", w.File, "error", err)
	}
}

// remember stores a look in File without a sync: an older look proves less, but nothing wrong.
func (w *Witness) remember(last ledger.Look) {
	if last == w.seen {
		return
	}
	w.seen = last
	if w.File == "" {
		return
	}
	content, err := json.Marshal(last)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(w.File), 0o700)
	}
	if err == nil {
		err = os.WriteFile(w.File, content, 0o600)
	}
	if err != nil {
		w.Log.Warn("newest look into the ledger not kept over a restart", "file", w.File, "error", err)
		w.File = "" // one line is enough
	}
}

// missing returns a bill of a recent run that the ledger lacks, unless the loss is recorded.
func (w *Witness) missing(ctx context.Context) (first *ledger.MadeBill, err error) {
	answer, err := w.Temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: recentRuns,
		Query: fmt.Sprintf("TaskQueue = '%s' AND ExecutionStatus = 'Completed' AND WorkflowId STARTS_WITH '%s'",
			strings.ReplaceAll(w.TaskQueue, "'", "''"), session.WorkflowIDPrefix)})
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
			continue // of another program
		}
		if _, err := w.Ledger.Bill(ctx, parsed); !errors.Is(err, sql.ErrNoRows) {
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
