// Package reconcile closes out sessions without a room_close, adjusts bills with later
// events, and adds late recordings to archives. Workers check the ledger for due work and
// start the Workflow [Reconcile] only if there is some: see [Watch]. The Activities of the
// Workflow are the methods of [Reconciler].
package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/internal/ledger"
)

// Name is the Workflow's name.
const Name = "Reconcile"

// pagesInARun is the number of pages after which a run continues as new. A page adds some ten
// events to the history.
const pagesInARun = 200

// Progress is the progress of a reconciliation. The zero value starts one.
type Progress struct {
	// Before and After select the next page: sessions without a callback since Before, ordered
	// after After.
	Before time.Time          `json:"before,omitzero"`
	After  ledger.OpenSession `json:"after,omitzero"`
	// Failing counts the failed calls in a row by appid. After too many, the run makes no
	// more calls for the app.
	Failing map[uint32]int `json:"failing,omitempty"`
	// Result is the result so far.
	Result Result `json:"result,omitzero"`
}

// Result is the result of a reconciliation.
type Result struct {
	// Apps holds the counts of each app with overdue sessions, by appid.
	Apps map[uint32]Counts `json:"apps,omitempty"`
	// Adjustments is the number of started adjustments.
	Adjustments int `json:"adjustments"`
	// Late is the number of started runs that add late recordings.
	Late int `json:"late_recordings"`
	// Failed lists the parts that failed. The next run retries them.
	Failed []string `json:"failed,omitempty"`
}

// Counts counts the overdue sessions of one app. Each is counted in Overdue and in one of
// Alive, Doubtful, Gone, Reported and Failed.
type Counts struct {
	// Overdue counts sessions without a room_close and without a recent callback.
	Overdue int `json:"overdue"`
	// Asked counts the sessions that ZEGO has answered about.
	Asked int `json:"asked"`
	// Alive counts sessions with users in their room.
	Alive int `json:"alive"`
	// Doubtful counts sessions that seem gone and will be checked again.
	Doubtful int `json:"doubtful"`
	// Gone counts sessions that now have a Workflow.
	Gone int `json:"gone"`
	// Reported counts sessions that cannot be checked without a server secret.
	Reported int `json:"reported"`
	// Failed counts sessions with an error, and Error is the last one.
	Failed int    `json:"failed"`
	Error  string `json:"error,omitempty"`
}

func (c Counts) add(more Counts) Counts {
	return Counts{c.Overdue + more.Overdue, c.Asked + more.Asked, c.Alive + more.Alive, c.Doubtful + more.Doubtful,
		c.Gone + more.Gone, c.Reported + more.Reported, c.Failed + more.Failed, cmp.Or(more.Error, c.Error)}
}

// do names the Activities.
var do *Reconciler

// Reconcile is the Workflow. It checks all overdue sessions page by page, then the bills to
// adjust and the late recordings. An error stops none of the other parts; the run fails with
// it at the end, and the next run retries.
func Reconcile(ctx workflow.Context, progress Progress) (Result, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 15 * time.Minute,
		HeartbeatTimeout:    time.Minute,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, MaximumAttempts: 3},
	})
	result := &progress.Result
	if result.Apps == nil {
		result.Apps = map[uint32]Counts{}
	}
	for pages := 0; ; pages++ {
		workflow.SetCurrentDetails(ctx, details(progress, "Asks about overdue sessions."))
		if pages == pagesInARun {
			return Result{}, workflow.NewContinueAsNewError(ctx, Name, progress)
		}
		var page Page
		err := workflow.ExecuteActivity(withSummary(ctx, fmt.Sprintf("Overdue sessions, page %d", pages+1)), do.CheckOverdueSessions, progress).Get(ctx, &page)
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		if err != nil {
			// Without an answer of the ledger, the start of the next page is unknown.
			result.Failed = append(result.Failed, "check overdue sessions: "+reason(err))
			break
		}
		for _, app := range slices.Sorted(maps.Keys(page.Apps)) {
			result.Apps[app] = result.Apps[app].add(page.Apps[app])
		}
		progress.Before, progress.After, progress.Failing = page.Before, page.After, page.Failing
		if page.Last {
			break
		}
	}

	for _, start := range []struct {
		details, summary, failed string
		activity                 any
		started                  *int
	}{
		{"Starts adjustments of bills.", "Bills to adjust", "adjust bills: ", do.StartAdjustments, &result.Adjustments},
		{"Looks for recordings that came late.", "Late recordings", "add late recordings: ", do.StartLateRecordings, &result.Late},
	} {
		workflow.SetCurrentDetails(ctx, details(progress, start.details))
		if err := workflow.ExecuteActivity(withSummary(ctx, start.summary), start.activity).Get(ctx, start.started); err != nil {
			if ctx.Err() != nil {
				return Result{}, ctx.Err()
			}
			result.Failed = append(result.Failed, start.failed+reason(err))
		}
	}

	workflow.SetCurrentDetails(ctx, details(progress, ""))
	failed := slices.Clone(result.Failed)
	for _, app := range slices.Sorted(maps.Keys(result.Apps)) {
		c := result.Apps[app]
		if c.Reported > 0 {
			workflow.GetLogger(ctx).Warn("overdue sessions not checked", "action", "set CLOSEOUT_SERVER_SECRETS", "appid", app, "sessions", c.Reported)
		}
		if c.Failed > 0 {
			failed = append(failed, fmt.Sprintf("app %d: %d sessions: %s", app, c.Failed, c.Error))
		}
	}
	if len(failed) > 0 {
		return Result{}, temporal.NewApplicationErrorWithOptions(strings.Join(failed, "; "), "Incomplete",
			temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{*result}})
	}
	return *result, nil
}

// Register registers the Workflow and its Activities.
func Register(w worker.Registry, r *Reconciler) {
	w.RegisterWorkflowWithOptions(Reconcile, workflow.RegisterOptions{Name: Name})
	w.RegisterActivity(r)
}

func withSummary(ctx workflow.Context, summary string) workflow.Context {
	options := workflow.GetActivityOptions(ctx)
	options.Summary = summary
	return workflow.WithActivityOptions(ctx, options)
}

// reason returns in one line why an Activity failed.
func reason(err error) string {
	if app := new(temporal.ApplicationError); errors.As(err, &app) {
		return app.Message()
	}
	return err.Error()
}

// details returns the run's details for the Web UI, in Markdown.
func details(p Progress, doing string) string {
	var b strings.Builder
	if doing != "" {
		b.WriteString(doing + "\n\n")
	}
	for _, app := range slices.Sorted(maps.Keys(p.Result.Apps)) {
		c := p.Result.Apps[app]
		fmt.Fprintf(&b, "- App %d: %d overdue sessions; %d asked about, %d alive, %d doubtful, %d gone and closed out, %d only reported, %d failed\n",
			app, c.Overdue, c.Asked, c.Alive, c.Doubtful, c.Gone, c.Reported, c.Failed)
		if c.Error != "" {
			fmt.Fprintf(&b, "  Last error: %s\n", code(c.Error))
		}
	}
	if len(p.Result.Apps) == 0 {
		b.WriteString("No session is overdue so far.\n")
	}
	fmt.Fprintf(&b, "- Adjustments of bills: %d\n- Archives to which late recordings are added: %d\n", p.Result.Adjustments, p.Result.Late)
	for _, f := range p.Result.Failed {
		fmt.Fprintf(&b, "- Failed: %s\n", code(f))
	}
	return b.String()
}

// code returns text as a Markdown code span.
func code(s string) string {
	return "`" + strings.Join(strings.Fields(strings.ReplaceAll(s, "`", "'")), " ") + "`"
}
