package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/converter"
	sdktemporal "go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// openBuckets opens the bucket of the recordings, with files of some sessions, and that of the
// archive.
func (k *worker) openBuckets(dir string) {
	k.dir = dir
	for s := range 4 {
		if k.w.recorded() {
			break
		}
		id := session.ID{AppID: app, RoomSessionID: uint64(firstSession + s)}
		chance := k.w.chance("recordings", s)
		for n := range chance.IntN(3) {
			name := fmt.Sprintf("%d.mp4", n)
			k.putFile(id, name, strings.Repeat(name, 1+chance.IntN(1000)))
			k.files[id] = append(k.files[id], name)
		}
	}
	for _, name := range []string{"recordings", "archive"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			panic(err)
		}
	}
	var err error
	if k.source, err = archive.OpenBucket(context.Background(), "file://"+filepath.Join(dir, "recordings")); err != nil {
		panic(err)
	}
	if k.archive, err = archive.OpenBucket(context.Background(), "file://"+filepath.Join(dir, "archive")); err != nil {
		panic(err)
	}
}

// send records a receipt.
func (k *worker) send(key uuid.UUID, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if sent, again := k.receipts[key]; again && sent != text {
		k.w.broken("the receipt %s was sent with other figures: %s, then %s", key, sent, text)
	}
	k.receipts[key] = text
}

// afterRetention starts the runs of some sessions again, as a repeated callback does after
// Temporal has deleted their runs.
func (k *worker) afterRetention() {
	k.server.mu.Lock()
	all := slices.Clone(k.server.all)
	k.server.mu.Unlock()
	for n, r := range all {
		if k.w.chance("again", n).IntN(3) > 0 || !strings.HasPrefix(r.id, session.WorkflowIDPrefix) {
			continue
		}
		s, err := r.session()
		if err != nil {
			k.w.broken("%v", err)
			return
		}
		k.server.forget(r.id)
		options := workflows.StartOptions(s, taskQueue)
		if k.w.chance("without attributes", n).IntN(3) == 0 { // as the starter does if the Namespace lacks them
			options.TypedSearchAttributes = sdktemporal.SearchAttributes{}
		}
		if _, err := k.client.ExecuteWorkflow(context.Background(), options, workflows.Name(route(s)), s); err != nil {
			k.w.broken("start %s again: %v", r.id, err)
		}
	}
	k.awaitRuns()
}

// session returns the session that the run closes out.
func (r *serverRun) session() (s session.Session, err error) {
	err = converter.GetDefaultDataConverter().FromPayloads(r.start.Input, &s)
	return s, err
}

// checkRuns checks the result, the history and the archive of each run.
func (k *worker) checkRuns(entries map[session.ID]ledger.Entry) {
	for _, r := range k.server.all {
		err := fmt.Errorf("it ended as %v", r.status)
		if r.status == enums.WORKFLOW_EXECUTION_STATUS_COMPLETED {
			err = k.checkRun(r, entries)
		}
		if err != nil {
			k.w.broken("%s: %v\n%s", r.runID, err, r.story())
			return
		}
	}
	for _, e := range entries {
		err := k.checkReceipts(e)
		if err == nil && !k.skipped[e.Session.ID] {
			err = k.checkArchive(e.Session)
		}
		if err != nil {
			k.w.broken("session %d: %v", sessionOf(e.RoomSessionID), err)
			return
		}
	}
	if len(k.receipts) != k.receipted {
		k.w.broken("%d receipts were sent, want %d", len(k.receipts), k.receipted)
	}
}

// adjustment is the name of the step that adjusts a bill, without its number.
const adjustment = "adjustment"

// stepOf returns the step that an Activity of a run attempts.
func stepOf(activity string) string {
	switch activity {
	case "FinalizeBill":
		return workflows.Billing.Name
	case "ArchiveRecordings", "AddRecordings":
		return workflows.Recordings.Name
	case "SendReceipt":
		return "receipt"
	case "Deliver":
		return "delivery"
	}
	return adjustment
}

// followed follows a history, and checks each step in it.
type followed struct {
	result     workflows.Result // of the run
	blocked    map[string]bool
	attempts   map[string]int
	timers     map[string]string // summaries, by timer ID
	activities map[int64]string  // names, by the ID of their first event
	signals    map[string]*signals
	approved   bool
	indexed    bool // it received SignalIndex
	searchable bool
	shown      string // CloseoutState
	stale      bool   // a Workflow Task has completed since the last check
	decisions  int
	skipped    bool // an operator skipped a step
	givenUp    bool
	began      time.Time // of the first Workflow Task
}

// signals follows the Signals named after a step, which wake it once it has waited, also while
// it is blocked. An attempt takes them, unless it is the first one, or the first after a retry.
type signals struct {
	pending bool
	wakes   bool // the step has waited
	waited  bool // it has waited since the last retry
	again   bool // its Local Activity has failed, and the Activity belongs to the same attempt
}

func (f *followed) of(step string) *signals {
	if f.signals[step] == nil {
		f.signals[step] = &signals{}
	}
	return f.signals[step]
}

// attempt checks that a step is attempted only when it may be.
func (f *followed) attempt(activity string, r *serverRun, at time.Time) error {
	step := stepOf(activity)
	f.attempts[step]++
	s := f.of(step)
	if s.pending && s.wakes {
		delete(f.blocked, step)
	}
	if s.waited && !s.again {
		s.pending = false
	}
	s.again = false
	switch {
	case f.blocked[step]:
		return fmt.Errorf("%s was attempted while it was blocked", step)
	case step == "receipt" && f.attempts[workflows.Billing.Name]+f.attempts[adjustment] == 0:
		return errors.New("the receipt was sent before the bill was made")
	case step == workflows.Billing.Name && at.Sub(r.events[0].EventTime.AsTime()) < r.start.WorkflowStartDelay.AsDuration():
		return errors.New("the session was billed before it was settled")
	case activity == "AddRecordings" && strings.HasPrefix(r.id, lateRecordings): // again
	case step != adjustment && step != "receipt" && !strings.HasPrefix(r.id, session.WorkflowIDPrefix):
		return fmt.Errorf("%s was attempted in an adjustment", step)
	case step == "delivery" && at.Sub(f.began) < noSooner:
		return errors.New("the delivery didn't wait")
	}
	return nil
}

// completed records an attempt without an error. If others follow, the step waits.
func (f *followed) completed(activity string) {
	s := f.of(stepOf(activity))
	s.wakes, s.waited = true, true
}

// failed records the end of a step's attempts.
func (f *followed) failed(activity string) {
	switch step := stepOf(activity); {
	case step == "delivery":
		f.givenUp = true
	default:
		f.blocked[step] = true
	}
}

// check checks that the run shows whether it is blocked.
func (f *followed) check() error {
	if !f.stale {
		return nil
	}
	f.stale = false
	if f.approved { // an operator may have decided in the same Workflow Task
		delete(f.blocked, approval)
	}
	want := ""
	if len(f.blocked) > 0 {
		want = string(workflows.StateBlocked)
	}
	if f.searchable && f.shown != want {
		return fmt.Errorf("CloseoutState is %q while %v are blocked", f.shown, slices.Sorted(maps.Keys(f.blocked)))
	}
	return nil
}

// upsert follows changes of Search Attributes.
func (f *followed) upsert(attributes *common.SearchAttributes) error {
	data := converter.GetDefaultDataConverter()
	if _, ok := attributes.GetIndexedFields()[workflows.RoomID.GetName()]; ok {
		f.searchable = true
	}
	if value, ok := attributes.GetIndexedFields()[workflows.CloseoutState.GetName()]; ok {
		f.shown = ""
		return data.FromPayload(value, &f.shown)
	}
	return nil
}

// event follows one event.
func (f *followed) event(e *historypb.HistoryEvent, r *serverRun) error {
	data, at := converter.GetDefaultDataConverter(), e.EventTime.AsTime()
	switch e.EventType {
	case enums.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
		return f.upsert(e.GetWorkflowExecutionStartedEventAttributes().SearchAttributes)
	case enums.EVENT_TYPE_WORKFLOW_TASK_STARTED:
		if f.began.IsZero() {
			f.began = at
		}
		return f.check()
	case enums.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
		f.stale = true
	case enums.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
		return f.upsert(e.GetUpsertWorkflowSearchAttributesEventAttributes().SearchAttributes)
	case enums.EVENT_TYPE_TIMER_STARTED:
		var summary string
		if err := data.FromPayload(e.UserMetadata.GetSummary(), &summary); err != nil {
			return err
		}
		f.timers[e.GetTimerStartedEventAttributes().TimerId] = summary
	case enums.EVENT_TYPE_TIMER_FIRED:
		defer func() {
			if f.timers[e.GetTimerFiredEventAttributes().TimerId] == approval && !f.approved {
				f.blocked[approval] = true
			}
		}()
		return f.check()
	case enums.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
		err := f.check()
		switch e.GetWorkflowExecutionSignaledEventAttributes().SignalName {
		case approval:
			f.approved = true
		case workflows.Recordings.Name:
			f.of(workflows.Recordings.Name).pending = true
		case workflows.SignalIndex:
			f.indexed = true
		}
		return err
	case enums.EVENT_TYPE_MARKER_RECORDED:
		a := e.GetMarkerRecordedEventAttributes()
		var local struct{ ActivityType string }
		if a.MarkerName != "LocalActivity" {
			return nil
		}
		if err := data.FromPayloads(a.Details["data"], &local); err != nil {
			return err
		}
		err := f.attempt(local.ActivityType, r, at)
		switch {
		case a.Failure == nil:
			f.completed(local.ActivityType)
		case activities.IsBlocked(sdktemporal.GetDefaultFailureConverter().FailureToError(a.Failure)):
			f.failed(local.ActivityType)
		default:
			f.of(stepOf(local.ActivityType)).again = true
		}
		return err
	case enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
		name := e.GetActivityTaskScheduledEventAttributes().ActivityType.Name
		f.activities[e.EventId] = name
		return f.attempt(name, r, at)
	case enums.EVENT_TYPE_ACTIVITY_TASK_STARTED:
		return f.check()
	case enums.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
		f.completed(f.activities[e.GetActivityTaskCompletedEventAttributes().ScheduledEventId])
	case enums.EVENT_TYPE_ACTIVITY_TASK_FAILED:
		a := e.GetActivityTaskFailedEventAttributes()
		f.failed(f.activities[a.ScheduledEventId])
		if a.RetryState != enums.RETRY_STATE_NON_RETRYABLE_FAILURE && a.RetryState != enums.RETRY_STATE_TIMEOUT {
			return fmt.Errorf("a step is no longer retried: %v", a.RetryState)
		}
	case enums.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
		f.failed(f.activities[e.GetActivityTaskTimedOutEventAttributes().ScheduledEventId])
	case enums.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
		input := e.GetWorkflowExecutionUpdateAcceptedEventAttributes().AcceptedRequest.Input
		var d workflows.Decision
		if err := data.FromPayloads(input.Args, &d); err != nil {
			return err
		}
		if f.decisions == len(f.result.Decisions) {
			return fmt.Errorf("the result lacks %s of %q", input.Name, d.Step)
		}
		made := f.result.Decisions[f.decisions]
		if strings.HasPrefix(made.Step, adjustment) {
			made.Step = adjustment // without its number
		}
		if made.Decision != input.Name || d.Step != "" && d.Step != made.Step || !f.blocked[made.Step] {
			return fmt.Errorf("it accepted %s of %q as %s of %q while %v are blocked", input.Name, d.Step, made.Decision, made.Step, slices.Sorted(maps.Keys(f.blocked)))
		}
		delete(f.blocked, made.Step)
		f.of(made.Step).waited = false
		f.decisions++
		f.skipped = f.skipped || input.Name == workflows.UpdateSkip
	}
	return nil
}

func (k *worker) checkRun(r *serverRun, entries map[session.ID]ledger.Entry) error {
	f := followed{blocked: map[string]bool{}, attempts: map[string]int{}, timers: map[string]string{}, activities: map[int64]string{},
		signals: map[string]*signals{}}
	last := r.events[len(r.events)-1].GetWorkflowExecutionCompletedEventAttributes()
	if err := converter.GetDefaultDataConverter().FromPayloads(last.GetResult(), &f.result); err != nil {
		return err
	}
	for _, e := range r.events {
		if err := f.event(e, r); err != nil {
			return fmt.Errorf("event %d: %w", e.EventId, err)
		}
	}
	k.w.decisions += f.decisions
	want := workflows.StateDone
	switch {
	case f.givenUp:
		want = workflows.StateGivenUp
	case f.skipped:
		want = workflows.StateSkipped
	}
	if f.result.State != want || len(f.result.Decisions) != f.decisions {
		return fmt.Errorf("the result is %q with %d decisions, want %q with %d", f.result.State, len(f.result.Decisions), want, f.decisions)
	}
	if want == workflows.StateDone {
		want = ""
	}
	if f.indexed && !f.searchable {
		return errors.New("it has no Search Attributes although it received the Signal for them")
	}
	if f.searchable && f.shown != string(want) {
		return fmt.Errorf("it shows %q at its end, want %q", f.shown, want)
	}
	s, err := r.session()
	if err != nil {
		return err
	}
	if f.skipped { // only recordings are skipped
		k.skipped[s.ID] = true
	}
	if !strings.HasPrefix(r.id, session.WorkflowIDPrefix) {
		return nil
	}
	for _, step := range f.result.Steps {
		if step.Step != workflows.Billing.Name {
			continue
		}
		text, err := json.Marshal(step.Output)
		if err != nil {
			return err
		}
		var bill activities.Bill
		if err := json.Unmarshal(text, &bill); err != nil {
			return err
		}
		if e := entries[s.ID]; bill.ID != e.ID || bill.Usage != e.Bill.Usage || bill.Charge.Amount != e.Bill.Charge.Amount {
			return fmt.Errorf("its result has the bill %+v, and the ledger %+v", bill.Bill, e.Bill)
		}
	}
	return nil
}
