package telemetry

import (
	"context"
	"io"
	"log/slog"
	"strconv"

	"go.opentelemetry.io/otel/trace"

	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/session"
)

// NewLogger returns a logger that writes lines of text or of JSON. Lines about a run, including
// those of the SDK, have the attributes workflow_id and room_session_id, and lines with a trace
// its IDs. Lines of JSON also have the program's version, because a log collector receives lines
// of several builds.
func NewLogger(w io.Writer, level slog.Level, json bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(lines{slog.NewJSONHandler(w, options)}).With(serviceVersion, buildinfo.Read().Version)
	}
	return slog.New(lines{slog.NewTextHandler(w, options)})
}

// lines completes the attributes of log lines.
type lines struct{ slog.Handler }

// Handle implements [slog.Handler].
func (l lines) Handle(ctx context.Context, r slog.Record) error {
	short, session := false, false
	r.Attrs(func(a slog.Attr) bool {
		short = short || a.Key == "workflow_id" || renamed[a.Key] != ""
		session = session || a.Key == "room_session_id"
		return true
	})
	span := trace.SpanContextFromContext(ctx)
	if short && !session || span.IsValid() {
		attrs := make([]slog.Attr, 0, r.NumAttrs())
		r.Attrs(func(a slog.Attr) bool {
			attrs = append(attrs, a)
			return true
		})
		if !session {
			attrs = complete(attrs)
		}
		if span.IsValid() {
			attrs = append(attrs, slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
		}
		r = slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
		r.AddAttrs(attrs...)
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (l lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return lines{l.Handler.WithAttrs(complete(attrs))}
}

// WithGroup implements [slog.Handler].
func (l lines) WithGroup(name string) slog.Handler { return lines{l.Handler.WithGroup(name)} }

// renamed maps the SDK's names of attributes to those used here.
var renamed = map[string]string{"WorkflowID": "workflow_id", "RunID": "run_id", "TraceID": "trace_id", "SpanID": "span_id"}

// complete renames the attributes, and adds the session of a Workflow's ID.
func complete(attrs []slog.Attr) []slog.Attr {
	whole := make([]slog.Attr, 0, len(attrs)+1)
	for _, a := range attrs {
		if name := renamed[a.Key]; name != "" {
			a.Key = name
		}
		whole = append(whole, a)
		if a.Key == "workflow_id" {
			if id, err := session.ParseWorkflowID(a.Value.String()); err == nil {
				whole = append(whole, slog.String("room_session_id", strconv.FormatUint(id.RoomSessionID, 10)))
			}
		}
	}
	return whole
}
