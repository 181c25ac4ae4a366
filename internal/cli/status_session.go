package cli

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/probe"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// The places that have something of a session, as people read them.
const (
	inTemporal = "run"
	inInbox    = "inbox"
	inEvents   = "events"
	inLedger   = "bill"
	inArchive  = "manifest"
)

// sessionStatus is what the stores have of a session. What does not exist is nil.
type sessionStatus struct {
	WorkflowID string      `json:"workflow_id"`
	RoomID     string      `json:"room_id,omitempty"`
	Inbox      *inboxEntry `json:"inbox"`
	Run        *runStatus  `json:"run"`
	// Open is set for a session without a known room_close.
	Open     *openStatus          `json:"open,omitempty"`
	Bill     *ledger.MadeBill     `json:"bill"`
	Manifest *activities.Archived `json:"manifest"`
	// Events counts callbacks about participants that are not in the ledger yet.
	Events *eventStatus `json:"event_inbox,omitempty"`
	// URL is the run's page in the Web UI.
	URL string `json:"url,omitempty"`
	// Unknown is why a place could not be read, by its name. Unreached lists those that exist, or may.
	Unknown   map[string]string `json:"unknown,omitempty"`
	unreached []string
}

type eventStatus struct {
	Waiting     int       `json:"waiting"`
	DeadLetters int       `json:"dead_letters"`
	Since       time.Time `json:"since,omitzero"`
}

type openStatus struct {
	SeenAt  time.Time `json:"seen_at"`
	Left    bool      `json:"left"`
	Overdue bool      `json:"overdue"`
	// Gone counts ZEGO's last answers that the room does not exist.
	Gone int `json:"gone"`
}

type runStatus struct {
	RunID    string `json:"run_id"`
	Workflow string `json:"workflow"`
	// Status is Temporal's, State is Closeout's.
	Status    string          `json:"status"`
	State     workflows.State `json:"state,omitempty"`
	StartedAt time.Time       `json:"started_at"`
	ClosedAt  *time.Time      `json:"closed_at,omitempty"`
	// Details are the steps of an open run, in Markdown. Result is that of a completed run. Fault is why there is neither.
	Details string            `json:"details,omitempty"`
	Result  *workflows.Result `json:"result,omitempty"`
	Fault   string            `json:"fault,omitempty"`
}

func (s *sessionStatus) found() bool {
	return s.Inbox != nil || s.Events != nil || s.Run != nil || s.Open != nil || s.Bill != nil || s.Manifest != nil
}

// lacks returns what keeps a session from being closed out, or "".
func (s *sessionStatus) lacks() string {
	if s.Run == nil {
		return s.missing(inTemporal)
	}
	if s.Run.Result == nil || s.Run.State != workflows.StateDone {
		return fmt.Sprintf("its run is %s", s.Run)
	}
	for _, made := range []struct {
		step, place string
		exists      bool
	}{{workflows.Billing.Name, inLedger, s.Bill != nil}, {workflows.Recordings.Name, inArchive, s.Manifest != nil}} {
		ran := slices.ContainsFunc(s.Run.Result.Steps, func(step workflows.StepResult) bool { return step.Step == made.step })
		if ran && !made.exists {
			return s.missing(made.place)
		}
	}
	return ""
}

func (s *sessionStatus) missing(place string) string {
	if why := s.Unknown[place]; why != "" {
		return place + " unknown: " + why
	}
	return "no " + place
}

// part sets the fields that one place has. A read returns it, because a read that hangs may
// end after the status was shown.
type part func(*sessionStatus)

// status reads all places, beside each other.
func (op *operation) status(ctx context.Context, id string) *sessionStatus {
	key, _ := session.ParseWorkflowID(id)
	reads := []struct {
		place string
		read  func(ctx context.Context, workflowID string, id session.ID) (part, error)
	}{{inTemporal, op.readRun}, {inInbox, op.readInbox}, {inEvents, op.readEvents}, {inLedger, op.readLedger}, {inArchive, op.readArchive}}
	parts, errs := make([]part, len(reads)), make([]error, len(reads))
	var group sync.WaitGroup
	for n, r := range reads {
		group.Go(func() {
			parts[n], errs[n] = probe.Do(ctx, storeTimeout, func(ctx context.Context) (part, error) { return r.read(ctx, id, key) })
		})
	}
	group.Wait()
	s := &sessionStatus{WorkflowID: id, Unknown: map[string]string{}}
	for n, r := range reads {
		if errs[n] != nil {
			s.Unknown[r.place] = oneLine(errs[n].Error())
			if !errors.Is(errs[n], os.ErrNotExist) && !errors.Is(errs[n], ledger.ErrNotSetUp) {
				s.unreached = append(s.unreached, r.place)
			}
		} else if parts[n] != nil {
			parts[n](s)
		}
	}
	switch {
	case s.Run != nil:
		s.URL = runURL(op.config, id, s.Run.RunID)
	case s.Unknown[inTemporal] != "":
		s.URL = runURL(op.config, id, "")
	}
	return s
}

// readRun reads the session's last run.
func (op *operation) readRun(ctx context.Context, id string, _ session.ID) (part, error) {
	answer, err := op.temporal.DescribeWorkflowExecution(ctx, id, "")
	if errors.As(err, new(*serviceerror.NotFound)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask Temporal at %s: %w", op.config.Temporal.HostPort, err)
	}
	info := answer.GetWorkflowExecutionInfo()
	r := &runStatus{
		RunID: info.GetExecution().GetRunId(), Workflow: info.GetType().GetName(), Status: info.GetStatus().String(),
		State: workflows.State(attribute(info, workflows.CloseoutState)), StartedAt: info.GetStartTime().AsTime(),
	}
	if closed := info.GetCloseTime(); closed != nil {
		t := closed.AsTime()
		r.ClosedAt = &t
	} else {
		r.State = cmp.Or(r.State, workflows.StateRunning)
	}
	begins := info.GetExecutionTime()
	switch status := info.GetStatus(); {
	case status != enums.WORKFLOW_EXECUTION_STATUS_RUNNING && status != enums.WORKFLOW_EXECUTION_STATUS_PAUSED:
		var result workflows.Result
		if err = op.temporal.GetWorkflow(ctx, id, r.RunID).Get(ctx, &result); err == nil {
			r.Result, r.State = &result, result.State
		}
	case begins != nil && begins.AsTime().After(time.Now()):
		r.Details = "The run starts at " + moment(begins.AsTime()) + ", so that callbacks ZEGO is still retrying are included."
	default:
		r.Details, err = currentDetails(ctx, op.temporal, id)
	}
	if err != nil {
		r.Fault = oneLine(err.Error()) // the rest is known, whether a worker answers or not
	}
	return func(s *sessionStatus) { s.Run, s.RoomID = r, attribute(info, workflows.RoomID) }, nil
}

func (op *operation) readInbox(ctx context.Context, id string, _ session.ID) (part, error) {
	store, err := op.openInbox()
	if err != nil {
		return nil, err
	}
	e, err := store.Get(ctx, id)
	if errors.Is(err, inbox.ErrNone) {
		return nil, nil
	}
	entry := inboxEntryOf(e)
	return func(s *sessionStatus) { s.Inbox, s.RoomID = &entry, cmp.Or(s.RoomID, entry.RoomID) }, err
}

// readEvents counts what the ledger does not have of a session yet.
func (op *operation) readEvents(ctx context.Context, _ string, id session.ID) (part, error) {
	store, err := op.openEvents()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var u eventStatus
	for e, err := range store.All(ctx) {
		if err != nil {
			return nil, err
		}
		_, found, err := eventsink.ParseKey(e.Key)
		switch {
		case err != nil || found != id:
		case !e.DeadAt.IsZero():
			u.DeadLetters++
		default:
			if u.Waiting++; u.Since.IsZero() {
				u.Since = e.QueuedAt
			}
		}
	}
	if u == (eventStatus{}) {
		return nil, nil
	}
	return func(s *sessionStatus) { s.Events = &u }, nil
}

func (op *operation) readLedger(ctx context.Context, _ string, id session.ID) (part, error) {
	l, err := op.openLedger()
	if err != nil {
		return nil, err
	}
	var open *openStatus
	var room string
	switch o, err := l.OpenSession(ctx, id); {
	case err == nil:
		open, room = &openStatus{o.SeenAt, o.Left, time.Since(o.SeenAt) > op.config.OverdueAfter, o.Gone}, o.RoomID
	case !errors.Is(err, sql.ErrNoRows):
		return nil, err
	}
	bill, err := l.MadeBill(ctx, id)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	return func(s *sessionStatus) {
		s.Open, s.RoomID = open, cmp.Or(s.RoomID, bill.RoomID, room)
		if err == nil {
			s.Bill = &bill
		}
	}, nil
}

func (op *operation) readArchive(ctx context.Context, _ string, id session.ID) (part, error) {
	bucket, err := op.openArchive()
	if err != nil {
		return nil, err
	}
	folder := id.Folder()
	m, err := archive.Latest(ctx, bucket, folder)
	if errors.Is(err, archive.ErrNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	archived := steps.ArchivedOf(m)
	archived.Manifest = m.Key(folder) // where it was found
	return func(s *sessionStatus) { s.Manifest, s.RoomID = &archived, cmp.Or(s.RoomID, m.RoomID) }, nil
}

// runURL returns the address of a run in the Web UI, or of a Workflow's runs.
func runURL(c *config.Config, id, runID string) string {
	u := strings.TrimRight(c.UIURL, "/") + "/namespaces/" + url.PathEscape(c.Temporal.Namespace) + "/workflows/" + url.PathEscape(id)
	if runID != "" {
		u += "/" + url.PathEscape(runID) + "/history"
	}
	return u
}

func (s *sessionStatus) print(out io.Writer) {
	fmt.Fprintln(out, s.WorkflowID)
	line := func(name, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if why := s.Unknown[name]; why != "" {
			text = "unknown: " + why
		}
		fmt.Fprintf(out, "  %-8s  %s\n", name, text)
	}
	if s.RoomID != "" {
		line("room", "%s", printable.Line(s.RoomID))
	}
	switch e := s.Inbox; {
	case e == nil:
		line(inInbox, "none")
	case e.DeadAt == nil:
		line(inInbox, "waiting since %s", moment(e.QueuedAt))
	default:
		line(inInbox, "dead letter since %s: %s", moment(*e.DeadAt), oneLine(e.Reason))
	}
	if u := s.Events; u != nil {
		line(inEvents, "%d callbacks waiting for the ledger, %d dead letters", u.Waiting, u.DeadLetters)
	} else if s.Unknown[inEvents] != "" {
		line(inEvents, "")
	}
	line(inTemporal, "%s", s.Run)
	for _, step := range s.Run.steps() {
		line("", "%s", step)
	}
	if o := s.Open; o != nil {
		line("open", "%s", o)
	}
	if b := s.Bill; b != nil {
		line(inLedger, "%s, made at %s", b.ID, moment(b.MadeAt))
		line("", "- %s", figures(b.Bill))
	} else {
		line(inLedger, "none")
	}
	if s.Manifest != nil {
		line(inArchive, "%s", s.Manifest)
	} else {
		line(inArchive, "none")
	}
	if s.URL != "" {
		line("Web UI", "%s", s.URL)
	}
}

// String describes the session in a line.
func (o *openStatus) String() string {
	text := "no room_close, last callback or answer at " + moment(o.SeenAt)
	if o.Left {
		text += ", all users have left"
	}
	if o.Overdue {
		text += fmt.Sprintf("; overdue, gone by %d of %d answers", o.Gone, reconcile.Answers)
	}
	return text
}

// String describes the run in a line.
func (r *runStatus) String() string {
	if r == nil {
		return "none"
	}
	text := r.Status
	if r.State != "" {
		text += ", " + string(r.State)
	}
	text += fmt.Sprintf("; %s, started at %s", printable.Line(r.Workflow), moment(r.StartedAt))
	if r.ClosedAt != nil {
		text += fmt.Sprintf(", closed after %v", r.ClosedAt.Sub(r.StartedAt).Round(time.Millisecond))
	}
	return text
}

// steps returns a line for each step and decision.
func (r *runStatus) steps() (lines []string) {
	switch {
	case r == nil:
	case r.Result != nil:
		for _, st := range r.Result.Steps {
			lines = append(lines, fmt.Sprintf("- %s: %s", printable.Line(st.Step), oneLine(st.Summary)))
		}
		for _, d := range r.Result.Decisions {
			lines = append(lines, fmt.Sprintf("- %s: %s of %s, because: %s", moment(d.Time), d.Decision, printable.Line(d.Step), oneLine(d.Reason)))
		}
	case r.Fault != "":
		lines = []string{r.Fault}
	default:
		_, steps, _ := strings.Cut(r.Details, "\n\n") // the first paragraph repeats the header
		lines = strings.Split(strings.ReplaceAll(strings.TrimSpace(steps), "\t", " "), "\n")
	}
	return lines
}
