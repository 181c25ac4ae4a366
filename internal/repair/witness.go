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

// Witness finds out whether a ledger was restored from a copy: by the looks that have been
// seen, and by bills that runs have made and the ledger doesn't have.
type Witness struct {
	// Temporal has the runs of the task queue. Without it, only looks count.
	Temporal  client.Client
	TaskQueue string
	// Data reads what Activities returned.
	Data converter.DataConverter
	// Ledger is the one that workers write to.
	Ledger *ledger.Ledger
	// File, if set, keeps the newest look over a restart.
	File string
	// Log gets what operators should know.
	Log *slog.Logger

	mu    sync.Mutex
	read  bool        // the File
	seen  ledger.Look // the newest look
	asked time.Time   // when Temporal was asked
}

const (
	// confirmFor is for how long Temporal isn't asked again ahead of a bill.
	confirmFor = 30 * time.Second
	// recentRuns is how many runs are compared with the ledger.
	recentRuns = 20
	// lookTimeout bounds a look, as the ledger may hang.
	lookTimeout = 10 * time.Second
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
	seen := w.seen.Number
	w.mu.Unlock()
	if loss, err = w.Ledger.NoteLoss(ctx, last, loss.From, seen); err != nil || loss == nil {
		return err
	}
	w.Log.Error("ledger was restored from a copy and has lost callbacks; see docs/restore.md, and run closeout repair", "from", loss.From, "to", loss.To)
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
	w.recall()
	if last.Number < w.seen.Number || last.Number == w.seen.Number && !last.At.Equal(w.seen.At) {
		from := last.At
		if from.After(w.seen.At) { // somebody has looked since it was restored, to when nobody knows
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
	if missing.MadeAt.Before(loss.From) { // somebody has looked since it was restored
		loss.From = missing.MadeAt
	}
	return last, loss, nil
}

// look confirms, and counts a look of this process unless the ledger was restored
// meanwhile. So a copy is noticed also if no worker has looked since it was made.
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

// Watch looks once an interval until ctx ends.
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

// recall reads the File once. One that can't be read is as none: the look is seen anew.
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

// remember keeps a look, which may be lost with the machine: an older one says less, and
// nothing wrong.
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

// missing returns a bill that one of the last runs has made and the ledger doesn't
// have, unless it is known to be lost.
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
