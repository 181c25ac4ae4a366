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

// Path is the path of callbacks. With a token, "/" and the token follow.
const Path = "/zego/callbacks"

// HooksPath is the path below which a [Router] serves [Options.Hooks].
const HooksPath = "/hooks"

// Receiver takes responsibility for verified callbacks.
type Receiver interface {
	// Receive returns a receipt only after the callback is safe even if the process is
	// killed, or if it ignores the callback. After an error ZEGO sends the callback again,
	// so the same event may come any number of times. Receive must return when ctx ends,
	// because the sender waits for it.
	//
	// The event has any type of package zego, including [*zego.Other]. A genuine callback
	// that can't be read is a [*zego.Unreadable]. Its answer is 400 whatever Receive
	// returns.
	Receive(ctx context.Context, event zego.Event) (Receipt, error)
}

// Receipt reports what a [Receiver] did with a callback.
type Receipt struct {
	// Status is the outcome in the answer to the sender.
	Status Status `json:"status"`
	// WorkflowID is the ID of the session's Workflow.
	WorkflowID string `json:"workflow_id,omitempty"`
}

// Status is the outcome of an accepted callback.
type Status string

// The outcomes of an accepted callback.
const (
	// Started means that a Workflow was started.
	Started Status = "started"
	// Duplicate means that the Workflow had been started before.
	Duplicate Status = "duplicate"
	// Signaled means that a Signal was sent to a run.
	Signaled Status = "signaled"
	// Stored means that the ledger has the callback.
	Stored Status = "stored"
	// Queued means that the callback is on disk, and waits for Temporal or the ledger.
	Queued Status = "queued"
	// Ignored means that the callback is genuine, but nothing handles it.
	Ignored Status = "ignored"
)

// Options configure a [Router].
type Options struct {
	// Keyring verifies callbacks. Without a Keyring every callback is refused.
	Keyring *zego.Keyring
	// Receiver receives each verified callback.
	Receiver Receiver
	// Token, if not empty, is a secret last segment of the path. It adds protection,
	// because ZEGO's signature doesn't cover the body.
	Token string
	// AnswerWithin bounds the receiver. Default: [AnswerWithin].
	AnswerWithin time.Duration
	// Hooks, if set, serves the paths below [HooksPath], with the listener's limits.
	Hooks http.Handler
	// Log gets a line for each callback. If one source has many refusals, only the first
	// are logged, and a later line has the number of the others.
	Log *slog.Logger
	// Observe, if set, is called with the event, outcome and duration of each request.
	// The event is the name of an event with a type in package zego, or "other", or empty
	// if the request may be anybody's. So a sender can't create further label values.
	Observe func(event string, outcome Outcome, took time.Duration)
	// ObserveField, if set, is called with each field that could not be read. refused
	// reports whether the callback was refused for it. The event is as in Observe, and
	// fields have the names that package zego reads.
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
		Options: o, limiter: newLimiter(), bodies: newBodies(bodyMemory),
		// A timestamp may be one window in the future, and stays valid for one window after.
		signatures: newSignatures(cmp.Or(2*o.Keyring.Window(), rememberAlways)),
	}

	r := mux.NewRouter().SkipClean(true) // otherwise mux redirects, and ZEGO doesn't follow
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
		// The comparison takes constant time and a wrong token is a 404, so that nobody
		// without the token learns that one is set.
		return subtle.ConstantTimeCompare([]byte(plainPath(r.URL.Path)), []byte(path)) == 1
	})
	return r
}

// plainPath returns the path without repeated and trailing slashes, which result from
// joining it to a base URL.
func plainPath(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return strings.TrimSuffix(path, "/")
}
