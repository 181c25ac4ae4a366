package workflows

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
)

// details returns the run's current details for the Web UI, in Temporal's Markdown.
func (r *Run) details() string {
	var b strings.Builder
	write := func(format string, args ...any) { b.WriteString(fmt.Sprintf(format, args...)) }
	write("Room %s, session %d of app %d, closed at %s (%s).\n\n", code(r.session.RoomID), r.session.RoomSessionID, r.session.AppID,
		r.session.RoomCloseTime.UTC().Format(time.RFC3339Nano), reasonText(r.session.CloseReason))
	for _, st := range r.steps {
		switch st.state {
		case StateDone:
			write("- **%s** is done: %s\n", st.Name, code(st.summary))
		case StateSkipped:
			write("- **%s** was skipped: %s\n", st.Name, code(st.reason))
		case StateBlocked:
			write("- **%s** is **blocked**: %s\n  Fix the cause and send the Update `%s` with %s, or skip the step with `%s`.\n",
				st.Name, code(st.failure), UpdateRetry, code(fmt.Sprintf(`{"step": %q, "reason": "why"}`, st.Name)), UpdateSkip)
		case StateGivenUp:
			write("- **%s** was given up: %s\n", st.Name, code(st.failure))
		case StateWaiting:
			write("- **%s** is waiting%s: %s\n", st.Name, waitsFor(st), st.Summary)
		default:
			write("- **%s** is running: %s\n", st.Name, st.Summary)
		}
	}
	for _, d := range r.decisions {
		write("- %s: %s of **%s**, because: %s\n", d.Time.UTC().Format(time.RFC3339), d.Decision, d.Step, code(d.Reason))
	}
	return b.String()
}

var blockedLine = regexp.MustCompile(`(?m)^- \*\*[^*\n]+\*\* is \*\*blocked\*\*: `)

// IsBlocked reports whether a run with these current details has a blocked step. Use it
// in Namespaces without the Search Attribute CloseoutState.
func IsBlocked(details string) bool { return blockedLine.MatchString(details) }

// waitsFor returns the words that follow "is waiting" in [Run.details].
func waitsFor(st *step) string {
	if st.waitsFor != "" {
		return " for " + code(st.waitsFor)
	}
	for _, d := range st.After {
		if dependency := d.dependency(); !dependency.ended() {
			return " for **" + dependency.Name + "**"
		}
	}
	return " until " + st.NotBefore.UTC().Format(time.RFC3339)
}

// failure returns in one line why an Activity failed.
func failure(err error, timeout time.Duration) string {
	var ended *temporal.ActivityError
	var timedOut *temporal.TimeoutError
	var app *temporal.ApplicationError
	text := err.Error()
	switch {
	case errors.As(err, &app):
		text = app.Message()
	case errors.As(err, &timedOut):
		text = timedOut.Message()
	}
	if errors.As(err, &ended) && ended.RetryState() == enums.RETRY_STATE_TIMEOUT || errors.As(err, &timedOut) {
		return fmt.Sprintf("not done within %v: %s", timeout, text)
	}
	return text
}

// code returns a Markdown code span of arbitrary text.
func code(s string) string {
	return "`" + strings.Join(strings.Fields(strings.ReplaceAll(s, "`", "'")), " ") + "`"
}
