package command

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v3"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"gocloud.dev/blob"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/collect"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/probe"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/workflows"
)

// Status is the command that tells where a session is.
func Status() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "tell where a session is: inbox, run, bill, manifest",
		Description: "Of a room it tells all sessions, the newest first. What can't be asked is said, and keeps nothing\n" +
			"else from being told. It fails if nothing is found. A session whose run Temporal doesn't list is\n" +
			"found by its number if CLOSEOUT_APPS has its app, and by its workflow ID.\n\n" +
			"With --wait it asks again until each session is closed out: the run done, the bill and the manifest\n" +
			"that its steps make there. It fails if that takes too long.\n\n" +
			"    closeout status 858012925204410417\n" +
			"    closeout status --wait 1m 858012925204410417\n" +
			"    closeout status lobby",
		ArgsUsage: "ROOM-SESSION-ID|ROOM-ID|WORKFLOW-ID...",
		Flags: append(Flags("DATA", "DATABASE_URL", "ARCHIVE_URL", "PAYLOAD_KEYS", "UI_URL", "LOG_LEVEL", "LOG_FORMAT"),
			&cli.IntFlag{Name: "limit", Value: 10, Usage: "how many sessions at most for each argument"},
			&cli.DurationFlag{Name: "wait", Usage: "how long to wait until each session is closed out (default: not at all)"},
			&cli.BoolFlag{Name: "json", Usage: "write it as JSON"}),
		Action: tellStatus,
	}
}

// waitPause is how long to wait before all is asked again.
const waitPause = 300 * time.Millisecond

// placePatience is how long a place may take to answer.
const placePatience = 5 * time.Second

// The places that a session leaves something in, as people read them.
const (
	inInbox    = "inbox"
	inTemporal = "run"
	inLedger   = "bill"
	inArchive  = "manifest"
	inUsage    = "usage"
)

// sessionStatus is what the places tell of a session. What isn't there is nil.
type sessionStatus struct {
	WorkflowID string `json:"workflow_id"`
	// RoomID is as the first place tells it that knows it.
	RoomID string       `json:"room_id,omitempty"`
	Inbox  *inboxStatus `json:"inbox"`
	Run    *runStatus   `json:"run"`
	// Open is what callbacks told of a session whose room_close isn't known.
	Open     *openStatus          `json:"open,omitempty"`
	Bill     *ledger.MadeBill     `json:"bill"`
	Manifest *activities.Archived `json:"manifest"`
	// Usage are the callbacks of its participants that the ledger doesn't have yet.
	Usage *usageStatus `json:"usage_inbox,omitempty"`
	// URL is the run in the Web UI, unless there is none.
	URL string `json:"url,omitempty"`
	// Unknown is why a place couldn't be asked, by its name.
	Unknown map[string]string `json:"unknown,omitempty"`
}

type inboxStatus struct {
	QueuedAt   time.Time  `json:"queued_at"`
	SetAsideAt *time.Time `json:"set_aside_at,omitempty"`
	Reason     string     `json:"reason,omitempty"`
}

type usageStatus struct {
	// Waiting wait for the ledger, since Since, and SetAside for a person.
	Waiting  int       `json:"waiting"`
	SetAside int       `json:"set_aside"`
	Since    time.Time `json:"since,omitzero"`
}

type openStatus struct {
	SeenAt  time.Time `json:"seen_at"`
	Left    bool      `json:"left"`
	Overdue bool      `json:"overdue"`
	// Gone is how many of the last answers of ZEGO's told that the room is gone.
	Gone int `json:"gone"`
}

func (o openStatus) String() string {
	text := "no room_close is known, last sign of life at " + moment(o.SeenAt)
	if o.Left {
		text += ", everybody has left"
	}
	if o.Overdue {
		text += fmt.Sprintf("; overdue, gone by %d of %d answers", o.Gone, reconcile.Answers)
	}
	return text
}

type runStatus struct {
	RunID    string `json:"run_id"`
	Workflow string `json:"workflow"`
	// Status is Temporal's word for it, and State is Closeout's.
	Status    string          `json:"status"`
	State     workflows.State `json:"state,omitempty"`
	StartedAt time.Time       `json:"started_at"`
	ClosedAt  *time.Time      `json:"closed_at,omitempty"`
	// Details are the steps of a run under way, in the Markdown of the Web UI.
	Details string `json:"details,omitempty"`
	// Result is that of a completed run.
	Result *workflows.Result `json:"result,omitempty"`
	// Fault is why there is neither.
	Fault string `json:"fault,omitempty"`
}

func (s *sessionStatus) found() bool {
	return s.Inbox != nil || s.Usage != nil || s.Run != nil || s.Open != nil || s.Bill != nil || s.Manifest != nil
}

func tellStatus(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() == 0 {
		return errors.New("no session, want a room_session_id, a room_id or a workflow ID as in: closeout status 858012925204410417")
	}
	limit := cmd.Int("limit")
	if limit < 1 {
		return fmt.Errorf("--limit: found %d, want at least 1", limit)
	}
	c, log, err := Load(cmd, false)
	if err != nil {
		return err
	}
	temporal, err := service.Dial(c, log, nil)
	if err != nil {
		return err
	}
	defer temporal.Close()
	p := openPlaces(ctx, c)
	defer p.close()
	p.temporal = temporal

	all := struct {
		Sessions []*sessionStatus `json:"sessions"`
		More     []string         `json:"more,omitempty"` // arguments that have more sessions
	}{Sessions: []*sessionStatus{}}
	var faults []error
	for _, arg := range cmd.Args().Slice() {
		sessions, more, err := p.await(ctx, arg, limit, cmd.Duration("wait"))
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", arg, err))
		}
		all.Sessions = append(all.Sessions, sessions...)
		if more {
			all.More = append(all.More, arg)
		}
	}
	out := cmd.Root().Writer
	if cmd.Bool("json") {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return errors.Join(append(faults, enc.Encode(all))...)
	}
	for n, s := range all.Sessions {
		if n > 0 {
			fmt.Fprintln(out)
		}
		s.write(out)
	}
	for _, arg := range all.More {
		fmt.Fprintf(out, "\n%s has more sessions than these; --limit shows more\n", arg)
	}
	return errors.Join(faults...)
}

// places are where a session may have left something. One that can't be opened is
// nil, and shut says why.
type places struct {
	config   *config.Config
	temporal client.Client
	inbox    *inbox.Store
	usage    *inbox.Store // nil also where none was made yet
	ledger   *ledger.Ledger
	archive  *blob.Bucket
	shut     map[string]error
}

// openPlaces opens them side by side, and gives up on one that hangs.
func openPlaces(ctx context.Context, c *config.Config) *places {
	p := &places{config: c, shut: map[string]error{}}
	var box, usage, books, bucket error
	var group sync.WaitGroup
	open(ctx, &group, &p.inbox, &box, func(ctx context.Context) (*inbox.Store, error) { return openInbox(ctx, c) })
	open(ctx, &group, &p.usage, &usage, func(ctx context.Context) (*inbox.Store, error) { return inbox.Attach(ctx, c.UsageInbox()) })
	open(ctx, &group, &p.ledger, &books, func(context.Context) (*ledger.Ledger, error) { return ledger.Open(c.DatabaseURL) })
	open(ctx, &group, &p.archive, &bucket, func(ctx context.Context) (*blob.Bucket, error) { return archive.OpenExisting(ctx, c.ArchiveURL) })
	group.Wait()
	if errors.Is(usage, os.ErrNotExist) {
		usage = nil
	}
	p.shut[inInbox], p.shut[inUsage], p.shut[inLedger], p.shut[inArchive] = box, usage, books, bucket
	return p
}

func open[T any](ctx context.Context, group *sync.WaitGroup, place **T, fault *error, f func(context.Context) (*T, error)) {
	group.Go(func() {
		opened, err := probe.Do(ctx, placePatience, func(ctx context.Context) (*T, error) { return f(context.WithoutCancel(ctx)) })
		if *fault = err; err == nil {
			*place = opened
		}
	})
}

// close closes them, but for one that hangs.
func (p *places) close() {
	_, _ = probe.Do(context.Background(), placePatience, probe.Err(func(context.Context) error {
		if p.inbox != nil {
			_ = p.inbox.Close()
		}
		if p.usage != nil {
			_ = p.usage.Close()
		}
		if p.ledger != nil {
			_ = p.ledger.Close()
		}
		if p.archive != nil {
			_ = p.archive.Close()
		}
		return nil
	}))
}

// await is find, again and again for so long, until all sessions are closed out.
func (p *places) await(ctx context.Context, arg string, limit int, patience time.Duration) (found []*sessionStatus, more bool, err error) {
	for since := time.Now(); ; {
		found, more, err = p.find(ctx, arg, limit)
		if patience <= 0 {
			return found, more, err
		}
		var lacking []string
		for _, s := range found {
			if what := s.lacks(); what != "" {
				lacking = append(lacking, s.WorkflowID+": "+what)
			}
		}
		switch {
		case err == nil && len(lacking) == 0:
			return found, more, nil
		case ctx.Err() != nil || time.Since(since) > patience:
			if err == nil {
				err = errors.New(strings.Join(lacking, "; "))
			}
			return found, more, fmt.Errorf("not closed out after %v: %w", time.Since(since).Round(time.Second), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(waitPause):
		}
	}
}

// lacks says what keeps a session from being closed out; nothing if it is.
func (s *sessionStatus) lacks() string {
	if s.Run == nil {
		return s.lack(inTemporal)
	}
	if s.Run.Result == nil || s.Run.State != workflows.StateDone {
		return fmt.Sprintf("its run is %s", s.Run)
	}
	for _, owed := range []struct {
		step, place string
		there       bool
	}{{workflows.Billing.Name, inLedger, s.Bill != nil}, {workflows.Recordings.Name, inArchive, s.Manifest != nil}} {
		made := slices.ContainsFunc(s.Run.Result.Steps, func(step workflows.StepResult) bool { return step.Step == owed.step })
		if made && !owed.there {
			return s.lack(owed.place)
		}
	}
	return ""
}

// lack says why nothing of the session is known to be in a place.
func (s *sessionStatus) lack(place string) string {
	if why := s.Unknown[place]; why != "" {
		return place + " unknown: " + why
	}
	return "no " + place
}

// find tells of the sessions that an argument means, the newest first. more says
// that there are others.
func (p *places) find(ctx context.Context, arg string, limit int) (found []*sessionStatus, more bool, err error) {
	ids, more, unasked := []string{arg}, false, []string(nil)
	if _, _, notAnID := workflows.ParseWorkflowID(arg); notAnID != nil {
		ids, more, unasked = p.search(ctx, arg, limit)
	}
	told := make([]*sessionStatus, len(ids))
	var group errgroup.Group
	group.SetLimit(8)
	for n, id := range ids {
		group.Go(func() error { told[n] = p.tell(ctx, id); return nil })
	}
	_ = group.Wait()
	for _, s := range told {
		if s.found() {
			found = append(found, s)
			continue
		}
		for _, place := range slices.Sorted(maps.Keys(s.Unknown)) {
			if fault := place + ": " + s.Unknown[place]; !slices.Contains(unasked, fault) {
				unasked = append(unasked, fault)
			}
		}
	}
	switch {
	case len(found) > 0:
		return found, more, nil
	case len(unasked) > 0:
		return nil, false, fmt.Errorf("nothing was found, and not all could be asked: %s", strings.Join(unasked, "; "))
	}
	return nil, false, errors.New("nothing was found; one that came a moment ago, or is older than Temporal keeps runs, is found by its workflow ID, as in room-close-1-858012925204410417")
}

// search gives the workflow IDs of the sessions with that number or of that room,
// the newest first. Those that it can only guess come last, and may not be there.
func (p *places) search(ctx context.Context, arg string, limit int) (ids []string, more bool, unasked []string) {
	var group sync.WaitGroup
	type runs struct {
		since map[string]time.Time
		more  bool
	}
	var there runs
	var queued map[string]time.Time
	var runsErr, inboxErr error
	group.Go(func() {
		there, runsErr = probe.Do(ctx, placePatience, func(ctx context.Context) (r runs, err error) {
			r.since, r.more, err = startedAt(ctx, p.temporal, queryFor(arg), func(run *workflow.WorkflowExecutionInfo) bool {
				// The runs about what came later have them, too.
				_, _, err := workflows.ParseWorkflowID(run.GetExecution().GetWorkflowId())
				return err == nil && (attribute(run, workflows.RoomID) == arg || attribute(run, workflows.RoomSessionID) == arg)
			})
			return r, err
		})
	})
	if p.inbox != nil {
		group.Go(func() {
			queued, inboxErr = probe.Do(ctx, placePatience, func(ctx context.Context) (map[string]time.Time, error) { return p.queued(ctx, arg) })
		})
	}
	group.Wait()
	since, more := map[string]time.Time{}, there.more
	maps.Copy(since, queued)
	maps.Copy(since, there.since)
	for _, err := range []error{runsErr, inboxErr} {
		if err != nil {
			unasked = append(unasked, inALine(err.Error()))
		}
	}
	ids = slices.SortedFunc(maps.Keys(since), func(a, b string) int {
		return cmp.Or(since[b].Compare(since[a]), cmp.Compare(a, b))
	})
	if len(ids) > limit {
		return ids[:limit], true, unasked
	}
	if session, err := strconv.ParseUint(arg, 10, 64); err == nil {
		for _, app := range slices.Sorted(maps.Keys(p.config.Apps)) {
			if id := workflows.WorkflowID(activities.Session{AppID: app, RoomSessionID: session}); since[id].IsZero() {
				ids = append(ids, id)
			}
		}
	}
	return ids, more, unasked
}

// queued gives the workflow IDs of the sessions in the inbox with that number or of
// that room, and since when they are there.
func (p *places) queued(ctx context.Context, arg string) (map[string]time.Time, error) {
	since := map[string]time.Time{}
	for e, err := range p.inbox.All(ctx) {
		if err != nil {
			return since, err
		}
		var s activities.Session // stays empty for what isn't one
		_ = json.Unmarshal(e.Body, &s)
		if s.RoomID == arg || strings.HasSuffix(e.Key, "-"+arg) {
			since[e.Key] = e.QueuedAt
		}
	}
	return since, nil
}

// queryFor finds what has that number or room, and maybe more: Temporal knows no
// way to ask for a text with quotes or backslashes in it, only for what is before.
func queryFor(arg string) string {
	if clean := strings.IndexAny(arg, "'\"\\"); clean >= 0 {
		return fmt.Sprintf("%s STARTS_WITH '%s'", workflows.RoomID.GetName(), arg[:clean])
	}
	return fmt.Sprintf("%s = '%s' OR %s = '%[2]s'", workflows.RoomSessionID.GetName(), arg, workflows.RoomID.GetName())
}

// tell asks all places for a session, side by side.
func (p *places) tell(ctx context.Context, id string) *sessionStatus {
	app, number, _ := workflows.ParseWorkflowID(id)
	session := activities.Session{AppID: app, RoomSessionID: number}
	s := &sessionStatus{WorkflowID: id, Unknown: map[string]string{}}
	var mu sync.Mutex
	var group sync.WaitGroup
	parts := map[string]*sessionStatus{}
	// A place that hangs may answer when nobody waits any more: it writes to a part of
	// its own.
	ask := func(place string, f func(context.Context, *sessionStatus) error) {
		group.Go(func() {
			part, err := (*sessionStatus)(nil), p.shut[place]
			if err == nil {
				part, err = probe.Do(ctx, placePatience, func(ctx context.Context) (*sessionStatus, error) {
					part := &sessionStatus{}
					return part, f(ctx, part)
				})
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.Unknown[place] = inALine(err.Error())
			}
			if part == nil {
				part = &sessionStatus{}
			}
			parts[place] = part
		})
	}
	ask(inTemporal, func(ctx context.Context, s *sessionStatus) (err error) {
		s.Run, s.RoomID, err = p.run(ctx, id)
		return err
	})
	ask(inInbox, func(ctx context.Context, s *sessionStatus) error {
		e, err := p.inbox.Get(ctx, id)
		if errors.Is(err, inbox.ErrNone) {
			return nil
		}
		if err != nil {
			return err
		}
		s.Inbox = &inboxStatus{QueuedAt: e.QueuedAt, Reason: e.Reason}
		if !e.SetAsideAt.IsZero() {
			s.Inbox.SetAsideAt = &e.SetAsideAt
		}
		var queued activities.Session // stays empty for what isn't one
		_ = json.Unmarshal(e.Body, &queued)
		s.RoomID = queued.RoomID
		return nil
	})
	ask(inUsage, func(ctx context.Context, s *sessionStatus) (err error) {
		s.Usage, err = p.queuedUsage(ctx, session)
		return err
	})
	ask(inLedger, func(ctx context.Context, s *sessionStatus) error {
		if err := p.ledger.Check(ctx); err != nil {
			return err
		}
		open, err := p.ledger.OpenSession(ctx, app, number)
		if err == nil {
			s.Open = &openStatus{open.SeenAt, open.Left, time.Since(open.SeenAt) > p.config.OverdueAfter, open.Gone}
			s.RoomID = open.RoomID
		} else if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		bill, err := p.ledger.MadeBill(ctx, app, number)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		s.Bill, s.RoomID = &bill, bill.RoomID
		return nil
	})
	ask(inArchive, func(ctx context.Context, s *sessionStatus) error {
		folder := activities.SessionFolder(session)
		m, err := archive.Latest(ctx, p.archive, folder)
		if errors.Is(err, archive.ErrNone) {
			return nil
		}
		if err != nil {
			return err
		}
		archived := steps.ArchivedOf(m)
		archived.Manifest = m.Key(folder) // where it was found
		s.Manifest, s.RoomID = &archived, m.RoomID
		return nil
	})
	group.Wait()
	s.Run, s.Inbox, s.Usage = parts[inTemporal].Run, parts[inInbox].Inbox, parts[inUsage].Usage
	s.Open, s.Bill, s.Manifest = parts[inLedger].Open, parts[inLedger].Bill, parts[inArchive].Manifest
	s.RoomID = cmp.Or(parts[inTemporal].RoomID, parts[inInbox].RoomID, parts[inLedger].RoomID, parts[inArchive].RoomID)
	switch {
	case s.Run != nil:
		s.URL = runURL(p.config, id, s.Run.RunID)
	case s.Unknown[inTemporal] != "":
		s.URL = runURL(p.config, id, "")
	}
	return s
}

// queuedUsage tells what the ledger doesn't have of a session; nil if it has all.
func (p *places) queuedUsage(ctx context.Context, s activities.Session) (*usageStatus, error) {
	if p.usage == nil {
		return nil, nil
	}
	var u usageStatus
	for e, err := range p.usage.All(ctx) {
		if err != nil {
			return nil, err
		}
		if _, app, session, err := collect.ParseKey(e.Key); err != nil || app != s.AppID || session != s.RoomSessionID {
			continue
		}
		if !e.SetAsideAt.IsZero() {
			u.SetAside++
			continue
		}
		if u.Waiting++; u.Since.IsZero() {
			u.Since = e.QueuedAt
		}
	}
	if u == (usageStatus{}) {
		return nil, nil
	}
	return &u, nil
}

// run tells of the session's run, the last one if there are several; nil if there
// is none.
func (p *places) run(ctx context.Context, id string) (r *runStatus, room string, err error) {
	answer, err := p.temporal.DescribeWorkflowExecution(ctx, id, "")
	if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("ask Temporal at %s: %w", p.config.Temporal.HostPort, err)
	}
	info := answer.GetWorkflowExecutionInfo()
	r = &runStatus{
		RunID: info.GetExecution().GetRunId(), Workflow: info.GetType().GetName(), Status: info.GetStatus().String(),
		State: workflows.State(attribute(info, workflows.CloseoutState)), StartedAt: info.GetStartTime().AsTime(),
	}
	if r.State == "" && info.GetCloseTime() == nil {
		r.State = workflows.StateRunning
	}
	if closed := info.GetCloseTime(); closed != nil {
		t := closed.AsTime()
		r.ClosedAt = &t
	}
	switch info.GetStatus() {
	case enums.WORKFLOW_EXECUTION_STATUS_RUNNING, enums.WORKFLOW_EXECUTION_STATUS_PAUSED:
		if begins := info.GetExecutionTime(); begins != nil && begins.AsTime().After(time.Now()) {
			r.Details = "The run starts at " + begins.AsTime().Format(time.RFC3339) + ", when late callbacks are in."
			break
		}
		// What was told so far stands, whether a worker answers or not.
		if r.Details, err = detailsOf(ctx, p.temporal, id); err != nil {
			r.Fault = inALine(err.Error())
		}
	default:
		var result workflows.Result
		if err := p.temporal.GetWorkflow(ctx, id, r.RunID).Get(ctx, &result); err != nil {
			r.Fault = inALine(err.Error())
			break
		}
		r.Result, r.State = &result, result.State
	}
	return r, attribute(info, workflows.RoomID), nil
}

// runURL is a run in the Web UI, or a workflow's runs.
func runURL(c *config.Config, id, runID string) string {
	u := strings.TrimRight(c.UIURL, "/") + "/namespaces/" + url.PathEscape(c.Temporal.Namespace) + "/workflows/" + url.PathEscape(id)
	if runID != "" {
		u += "/" + url.PathEscape(runID) + "/history"
	}
	return u
}

// write writes it for people.
func (s *sessionStatus) write(out io.Writer) {
	fmt.Fprintln(out, s.WorkflowID)
	line := func(name, format string, args ...any) {
		if why := s.Unknown[name]; why != "" {
			format, args = "unknown: %s", []any{why}
		}
		fmt.Fprintf(out, "  %-8s  %s\n", name, fmt.Sprintf(format, args...))
	}
	if s.RoomID != "" {
		line("room", "%s", printable.Line(s.RoomID))
	}
	switch {
	case s.Inbox == nil:
		line(inInbox, "not in it")
	case s.Inbox.SetAsideAt == nil:
		line(inInbox, "waits since %s", moment(s.Inbox.QueuedAt))
	default:
		line(inInbox, "set aside at %s: %s", moment(*s.Inbox.SetAsideAt), inALine(s.Inbox.Reason))
	}
	switch u := s.Usage; {
	case u != nil && u.Waiting > 0:
		line(inUsage, "%d callbacks wait for the ledger since %s, %d are set aside", u.Waiting, moment(u.Since), u.SetAside)
	case u != nil:
		line(inUsage, "%d callbacks are set aside", u.SetAside)
	case s.Unknown[inUsage] != "":
		line(inUsage, "")
	}
	switch r := s.Run; {
	case r == nil:
		line(inTemporal, "none")
	default:
		line(inTemporal, "%s", r)
		for _, step := range r.steps() {
			fmt.Fprintf(out, "  %-8s  %s\n", "", step)
		}
	}
	if s.Open != nil {
		line("open", "%s", s.Open)
	}
	switch b := s.Bill; b {
	case nil:
		line(inLedger, "none")
	default:
		line(inLedger, "%s, made at %s", b.ID, moment(b.MadeAt))
		fmt.Fprintf(out, "  %-8s  - %s\n", "", figuresInWords(b.Bill))
	}
	switch m := s.Manifest; m {
	case nil:
		line(inArchive, "none")
	default:
		line(inArchive, "%s", m)
	}
	if s.URL != "" {
		line("Web UI", "%s", s.URL)
	}
}

// String says in a line how far the run is.
func (r *runStatus) String() string {
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

// steps says what each step does or did, in lines.
func (r *runStatus) steps() (lines []string) {
	switch {
	case r.Result != nil:
		for _, st := range r.Result.Steps {
			lines = append(lines, fmt.Sprintf("- %s: %s", printable.Line(st.Step), inALine(st.Summary)))
		}
		for _, d := range r.Result.Decisions {
			lines = append(lines, fmt.Sprintf("- %s: %s of %s, because: %s", moment(d.Time), d.Decision, printable.Line(d.Step), inALine(d.Reason)))
		}
	case r.Fault != "":
		lines = []string{r.Fault}
	default:
		// The first paragraph says what is said here already.
		_, steps, _ := strings.Cut(r.Details, "\n\n")
		lines = strings.Split(strings.TrimSpace(steps), "\n")
	}
	return lines
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// inALine returns prose that may hold line ends as one line. A name, in which white
// space matters, is shown by [printable.Line].
func inALine(text string) string { return strings.Join(strings.Fields(text), " ") }
