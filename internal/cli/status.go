package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v3"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/probe"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// Status returns the command that shows where a session is.
func Status() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show where a session is: inbox, run, bill, manifest",
		Description: "Shows the sessions of a room, newest first. Reports stores that do not answer, and shows the rest. Fails if it\n" +
			"finds nothing. If Temporal does not list the run of a session, name the session by its Workflow ID, or by its\n" +
			"number if CLOSEOUT_APPS has its app.\n\n" +
			"With --wait, repeats until each session is closed out: the run is done, and the bill and the manifest of its\n" +
			"steps exist. Fails if that takes longer.\n\n" +
			"    closeout status 858012925204410417\n" +
			"    closeout status --wait 1m 858012925204410417\n" +
			"    closeout status lobby",
		ArgsUsage: "ROOM-SESSION-ID|ROOM-ID|WORKFLOW-ID...",
		Flags: append(Flags("DATA", "DATABASE_URL", "ARCHIVE_URL", "PAYLOAD_KEYS", "UI_URL", "LOG_LEVEL", "LOG_FORMAT"),
			&cli.IntFlag{Name: "limit", Value: 10, Usage: "maximum number of sessions for each argument"},
			&cli.DurationFlag{Name: "wait", Usage: "how long to wait until each session is closed out (default: not at all)"}, jsonFlag()),
		Action: operate(needTemporal, showStatus),
	}
}

const (
	// waitInterval is the pause before --wait asks again.
	waitInterval = 300 * time.Millisecond
	// maxListed bounds the runs that are read to find a room's sessions.
	maxListed = 1000
)

// statusReport is the result of status.
type statusReport struct {
	Sessions []*sessionStatus `json:"sessions"`
	// More lists the arguments that match more sessions.
	More []string `json:"more,omitempty"`
	// Unknown lists the apps with more rooms or users at ZEGO than in the ledger.
	Unknown []ledger.Comparison `json:"unknown,omitempty"`
}

func showStatus(ctx context.Context, op *operation) error {
	limit := op.Int("limit")
	if limit < 1 {
		return usagef("--limit: found %d, want at least 1", limit)
	}
	report := statusReport{Sessions: []*sessionStatus{}}
	err := op.each("session", exampleSession, func(arg string) error {
		found, more, err := op.await(ctx, arg, limit, op.Duration("wait"))
		report.Sessions = append(report.Sessions, found...)
		if more {
			report.More = append(report.More, arg)
		}
		return err
	})
	report.Unknown = op.unknown(ctx)
	return errors.Join(err, report.unreached(), op.print(report, report.print))
}

// unreached returns an error with the places that did not answer.
func (r statusReport) unreached() error {
	var places []string
	for _, s := range r.Sessions {
		places = append(places, s.unreached...)
	}
	if len(places) == 0 {
		return nil
	}
	slices.Sort(places)
	return unreachableError{fmt.Errorf("some stores did not answer, so these are unknown: %s", strings.Join(slices.Compact(places), ", "))}
}

// unknown returns the comparisons that found sessions without a callback, which no search can find.
func (op *operation) unknown(ctx context.Context) []ledger.Comparison {
	all, _ := probe.Do(ctx, storeTimeout, func(ctx context.Context) ([]ledger.Comparison, error) { // the status of a session reports the error
		l, err := op.openLedger()
		if err != nil {
			return nil, err
		}
		return l.Comparisons(ctx, time.Now().Add(-reconcile.ComparedFor))
	})
	return slices.DeleteFunc(all, func(c ledger.Comparison) bool { return c.Unknown() == "" })
}

// await calls find until all sessions are closed out, or for as long as wait.
func (op *operation) await(ctx context.Context, arg string, limit int, wait time.Duration) (found []*sessionStatus, more bool, err error) {
	for start := time.Now(); ; {
		found, more, err = op.find(ctx, arg, limit)
		if wait <= 0 {
			return found, more, err
		}
		var lacking []string
		for _, s := range found {
			if what := s.lacks(); what != "" {
				lacking = append(lacking, s.WorkflowID+": "+what)
			}
		}
		if err == nil && len(lacking) > 0 {
			err = errors.New(strings.Join(lacking, "; "))
		}
		if err == nil {
			return found, more, nil
		}
		if ctx.Err() != nil || time.Since(start) > wait {
			return found, more, fmt.Errorf("not closed out after %v: %w", time.Since(start).Round(time.Second), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(waitInterval):
		}
	}
}

// find returns the sessions that an argument names, newest first, and whether there are more.
func (op *operation) find(ctx context.Context, arg string, limit int) (found []*sessionStatus, more bool, err error) {
	ids, more, failed, reached := []string{arg}, false, []string(nil), true
	if !isRoomClose(arg) {
		ids, more, failed = op.search(ctx, arg, limit)
		reached = len(failed) == 0
	}
	all := make([]*sessionStatus, len(ids))
	var group errgroup.Group
	group.SetLimit(8)
	for n, id := range ids {
		group.Go(func() error { all[n] = op.status(ctx, id); return nil })
	}
	_ = group.Wait()
	for _, s := range all {
		if s.found() {
			found = append(found, s)
			continue
		}
		reached = reached && len(s.unreached) == 0
		for _, place := range slices.Sorted(maps.Keys(s.Unknown)) {
			if fault := place + ": " + s.Unknown[place]; !slices.Contains(failed, fault) {
				failed = append(failed, fault)
			}
		}
	}
	switch {
	case len(found) > 0:
		return found, more, nil
	case len(failed) > 0:
		err = fmt.Errorf("found nothing, and some stores did not answer: %s", strings.Join(failed, "; "))
		if !reached {
			err = unreachableError{err}
		}
		return nil, false, err
	}
	return nil, false, withHint(errors.New("found nothing"), "name a session that just came, or is older than Temporal's retention, by its Workflow ID, as in room-close-1-%s", exampleSession)
}

// listed are Workflow IDs with the time since when each is there, and whether there are more.
type listed struct {
	since map[string]time.Time
	more  bool
}

// search returns the Workflow IDs of the sessions with that number or of that room, newest first. Those it can only
// guess come last, and may not exist.
func (op *operation) search(ctx context.Context, arg string, limit int) (ids []string, more bool, failed []string) {
	since := map[string]time.Time{}
	found, errs := [2]listed{}, [2]error{}
	var group sync.WaitGroup
	for n, list := range []func(context.Context, string) (listed, error){op.searchInbox, op.searchRuns} {
		group.Go(func() {
			found[n], errs[n] = probe.Do(ctx, storeTimeout, func(ctx context.Context) (listed, error) { return list(ctx, arg) })
		})
	}
	group.Wait()
	for n, f := range found {
		maps.Copy(since, f.since)
		more = more || f.more
		if errs[n] != nil {
			failed = append(failed, oneLine(errs[n].Error()))
		}
	}
	ids = slices.SortedFunc(maps.Keys(since), func(a, b string) int {
		return cmp.Or(since[b].Compare(since[a]), cmp.Compare(a, b))
	})
	if len(ids) > limit {
		return ids[:limit], true, failed
	}
	if number, err := strconv.ParseUint(arg, 10, 64); err == nil {
		for _, app := range slices.Sorted(maps.Keys(op.config.Apps)) {
			if id := (session.ID{AppID: app, RoomSessionID: number}).WorkflowID(); since[id].IsZero() {
				ids = append(ids, id)
			}
		}
	}
	return ids, more, failed
}

// searchRuns returns when the sessions with that number or of that room were started.
func (op *operation) searchRuns(ctx context.Context, arg string) (listed, error) {
	query := fmt.Sprintf("%s OR %s = '%s'", ofSession(arg), workflows.RoomID.GetName(), arg)
	// A List Filter cannot hold quotes and backslashes, only what is before.
	if clean := strings.IndexAny(arg, "'\"\\"); clean >= 0 {
		query = fmt.Sprintf("%s STARTS_WITH '%s'", workflows.RoomID.GetName(), arg[:clean])
	}
	answer, err := op.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: maxListed})
	if err != nil {
		return listed{}, fmt.Errorf("look for the session: %w", err)
	}
	since := map[string]time.Time{}
	for _, run := range answer.GetExecutions() {
		id, start := run.GetExecution().GetWorkflowId(), run.GetStartTime().AsTime()
		matches := attribute(run, workflows.RoomID) == arg || attribute(run, workflows.RoomSessionID) == arg
		if isRoomClose(id) && matches && start.After(since[id]) {
			since[id] = start
		}
	}
	return listed{since, len(answer.GetNextPageToken()) > 0}, nil
}

// searchInbox returns since when the sessions with that number or of that room wait in the inbox.
func (op *operation) searchInbox(ctx context.Context, arg string) (listed, error) {
	store, err := op.openInbox()
	if err != nil {
		return listed{}, nil // the status of a session reports it
	}
	since := map[string]time.Time{}
	for e, err := range store.All(ctx) {
		if err != nil {
			return listed{since: since}, err
		}
		if inboxEntryOf(e).RoomID == arg || strings.HasSuffix(e.Key, "-"+arg) {
			since[e.Key] = e.QueuedAt
		}
	}
	return listed{since: since}, nil
}

func (r statusReport) print(out io.Writer) error {
	for n, s := range r.Sessions {
		if n > 0 {
			fmt.Fprintln(out)
		}
		s.print(out)
	}
	for _, arg := range r.More {
		fmt.Fprintf(out, "\n%s has more sessions than these; --limit shows more\n", arg)
	}
	for _, c := range r.Unknown {
		fmt.Fprintf(out, "\n%s: their sessions are nowhere here\n", c.Unknown())
	}
	return nil
}
