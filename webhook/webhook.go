package webhook

import (
	"cmp"
	"context"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/closeouthq/closeout/zego"
)

// Path is where callbacks are posted to, followed by "/" and the token if there is one.
const Path = "/zego/callbacks"

// HooksPath is the path below which a [Router] serves the endpoints of [Options.Hooks].
const HooksPath = "/hooks"

// Receiver takes responsibility for verified callbacks.
type Receiver interface {
	// Receive returns a receipt only once the callback survives the death of this
	// process, or has no use. After an error ZEGO sends the callback again, so one
	// event may come any number of times. Receive returns when ctx ends, because the
	// sender waits for it.
	//
	// The event has any type that package zego parses, [*zego.Other] included. A genuine
	// callback that can't be used comes as a [*zego.Unreadable]; its sender is answered
	// 400 whatever Receive returns.
	Receive(ctx context.Context, event zego.Event) (Receipt, error)
}

// Receipt reports what a [Receiver] did with a callback.
type Receipt struct {
	// Status is the outcome that the sender is answered.
	Status Status `json:"status"`
	// WorkflowID is the ID of the session's Workflow.
	WorkflowID string `json:"workflow_id,omitempty"`
}

// Status is the outcome of a callback that was accepted.
type Status string

// The outcomes of a callback that was accepted.
const (
	// Started means that a Workflow was started for the session.
	Started Status = "started"
	// Duplicate means that the session had its Workflow already.
	Duplicate Status = "duplicate"
	// Signaled means that the callback was sent to a run.
	Signaled Status = "signaled"
	// Stored means that the ledger has the callback.
	Stored Status = "stored"
	// Queued means that the callback is on disk until Temporal or the ledger takes it.
	Queued Status = "queued"
	// Ignored means that the callback is genuine and has no use.
	Ignored Status = "ignored"
)

// Options configure a [Router].
type Options struct {
	// Keyring verifies callbacks. Without one, none is genuine.
	Keyring *zego.Keyring
	// Receiver takes each verified callback.
	Receiver Receiver
	// Token, if not empty, is a secret last segment of the path: a second lock, because
	// ZEGO's signature doesn't cover the body.
	Token string
	// AnswerWithin bounds the receiver; 0 stands for [AnswerWithin].
	AnswerWithin time.Duration
	// Hooks, if set, serves the paths below [HooksPath], with the listener's limits.
	Hooks http.Handler
	// Log gets a line for each callback. Of many refusals from one source only the first
	// are logged; the next line has the number of the others.
	Log *slog.Logger
	// Observe, if set, is called with the event, outcome and duration of each request.
	// The event has a type in package zego, or is "other", or empty for a refused
	// request: a sender can't make up more.
	Observe func(event string, outcome Outcome, took time.Duration)
	// ObserveField, if set, is called with each field that could not be read, and whether
	// the callback was refused for it. The event is as in Observe; fields have the names
	// that package zego reads.
	ObserveField func(event, field string, refused bool)
}

// Router serves the callbacks, and answers everything else with a problem document
// (RFC 9457).
func Router(o Options) http.Handler {
	o.AnswerWithin = cmp.Or(o.AnswerWithin, AnswerWithin)
	o.Keyring = cmp.Or(o.Keyring, new(zego.Keyring))
	o.Log = cmp.Or(o.Log, slog.Default())
	if o.Observe == nil {
		o.Observe = func(string, Outcome, time.Duration) {}
	}
	if o.ObserveField == nil {
		o.ObserveField = func(string, string, bool) {}
	}
	h := &handler{
		Options: o, limiter: newLimiter(), bodies: newBodies(bodyRoom),
		// A timestamp may be as far ahead as it may be behind.
		signatures: newSignatures(cmp.Or(2*o.Keyring.Window(), rememberAlways)),
	}

	r := mux.NewRouter().SkipClean(true) // A redirect would be no answer to ZEGO.
	r.NotFoundHandler = http.HandlerFunc(h.notFound)
	r.MethodNotAllowedHandler = http.HandlerFunc(h.methodNotAllowed)
	if o.Hooks != nil {
		r.PathPrefix(HooksPath + "/").Handler(http.MaxBytesHandler(o.Hooks, MaxBody))
	}
	path := Path
	if o.Token != "" {
		path += "/" + o.Token
	}
	r.NewRoute().Methods(http.MethodPost).Handler(h).MatcherFunc(func(r *http.Request, _ *mux.RouteMatch) bool {
		// Whoever lacks the token doesn't learn that there is one.
		return subtle.ConstantTimeCompare([]byte(plainPath(r.URL.Path)), []byte(path)) == 1
	})
	return r
}

// plainPath returns the path without repeated and trailing slashes, which come from
// joining it to a base address.
func plainPath(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return strings.TrimSuffix(path, "/")
}
