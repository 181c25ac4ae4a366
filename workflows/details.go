package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
)

// details is what the Web UI shows of the run, in its Markdown.
func (s *Steps) details() string {
	var b strings.Builder
	write := func(format string, args ...any) { b.WriteString(fmt.Sprintf(format, args...)) }
	write("Room %s, session %d of app %d, closed at %s (%v).\n\n", code(s.session.RoomID), s.session.RoomSessionID, s.session.AppID,
		s.session.RoomCloseTime.UTC().Format(time.RFC3339Nano), s.session.CloseReason)
	for _, st := range s.steps {
		switch st.state {
		case StateDone:
			write("- **%s** is done: %s\n", st.Name, code(st.summary))
		case StateSkipped:
			write("- **%s** was skipped: %s\n", st.Name, code(st.reason))
		case StateBlocked:
			write("- **%s** is **blocked**: %s\n  Mend it and send the update `%s` with %s, or do without it with `%s`.\n",
				st.Name, code(st.failure), UpdateRetry, code(fmt.Sprintf(`{"step": %q, "reason": "why"}`, st.Name)), UpdateSkip)
		case StateGivenUp:
			write("- **%s** was given up: %s\n", st.Name, code(st.failure))
		case StateWaiting:
			write("- **%s** waits%s: %s\n", st.Name, waits(st), st.Summary)
		default:
			write("- **%s** is running: %s\n", st.Name, st.Summary)
		}
	}
	for _, d := range s.decisions {
		write("- %s: %s of **%s**, because: %s\n", d.Time.UTC().Format(time.RFC3339), d.Decision, d.Step, code(d.Reason))
	}
	return b.String()
}

// waits says what a step waits for.
func waits(st *step) string {
	if st.waits != "" {
		return " for " + code(st.waits)
	}
	for _, e := range st.After {
		if earlier := e.earlier(); !earlier.ended() {
			return " for **" + earlier.Name + "**"
		}
	}
	return " until " + st.NotBefore.UTC().Format(time.RFC3339)
}

// failure says in a line why an activity ended.
func failure(err error, deadline time.Duration) string {
	var ended *temporal.ActivityError
	var timeout *temporal.TimeoutError
	var app *temporal.ApplicationError
	text := err.Error()
	switch {
	case errors.As(err, &app):
		text = app.Message()
	case errors.As(err, &timeout):
		text = timeout.Message()
	}
	if errors.As(err, &ended) && ended.RetryState() == enums.RETRY_STATE_TIMEOUT || errors.As(err, &timeout) {
		return fmt.Sprintf("not done within %v: %s", deadline, text)
	}
	return text
}

// code makes a Markdown code span of text that may hold anything.
func code(s string) string {
	return "`" + strings.Join(strings.Fields(strings.ReplaceAll(s, "`", "'")), " ") + "`"
}
