package webhook

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/closeouthq/closeout/zego"
)

// Outcome is the outcome of a request, for logs and metrics: a [Status], or one of the
// refusals.
type Outcome string

// The refusals, with their HTTP status.
const (
	// RefusedMalformed means that the body is no callback (400).
	RefusedMalformed Outcome = "malformed"
	// RefusedUnreadable means that the callback is genuine, and that a required field is
	// missing or can't be read (400).
	RefusedUnreadable Outcome = "unreadable"
	// RefusedUnread means that the body didn't arrive whole (400).
	RefusedUnread Outcome = "unread"
	// RefusedTooLarge means that the body has more than [MaxBody] bytes (413).
	RefusedTooLarge Outcome = "too_large"
	// RefusedEncoding means that the body's Content-Encoding isn't supported (415).
	RefusedEncoding Outcome = "encoding"
	// RefusedCrowded means that the body is large, and was being read for longest when
	// others needed the memory. Its connection is closed without a response, because ZEGO
	// sends a recording callback again only then. No room_close is that large.
	RefusedCrowded Outcome = "crowded"
	// RefusedPath means that the path resembles that of callbacks, or that its token is
	// missing or wrong (404).
	RefusedPath Outcome = "wrong_path"
	// RefusedElsewhere means another path (404), RefusedMethod another method than POST
	// (405).
	RefusedElsewhere Outcome = "not_found"
	RefusedMethod    Outcome = "wrong_method"
	// RefusedUnknownApp means that there is no secret for the appid. It is answered 401, as
	// all that follow are, or 429 if much from the same source can't be verified.
	RefusedUnknownApp Outcome = "unknown_app"
	// RefusedSignature means that the signature is wrong.
	RefusedSignature Outcome = "bad_signature"
	// RefusedTooOld and RefusedTooNew mean that the timestamp is outside the window: an
	// old callback sent again, or a wrong clock.
	RefusedTooOld Outcome = "too_old"
	RefusedTooNew Outcome = "too_new"
	// RefusedReplay means that the signature came with another body before (401).
	RefusedReplay Outcome = "replay"
	// Unavailable means that the receiver could not take the callback (503).
	Unavailable Outcome = "unavailable"
)

const notVerified = "The callback could not be verified."

// answers are the answers to refusals.
var answers = map[Outcome]struct {
	status     int
	detail     string // empty: the error's
	genuine    string // the log message for a callback of ZEGO's; empty if it may be anybody's
	unverified bool   // many of these are answered late
}{
	RefusedMalformed:  {status: 400},
	RefusedUnread:     {status: 400, detail: "The body did not arrive whole, or too slowly."},
	RefusedTooLarge:   {status: 413, detail: "The body has more than 1 MiB, or too much once it is decompressed."},
	RefusedEncoding:   {status: 415, detail: "Content-Encoding: want gzip, or none."},
	RefusedCrowded:    {}, // no answer
	RefusedPath:       {status: 404, detail: "There is nothing at this path."},
	RefusedElsewhere:  {status: 404, detail: "There is nothing at this path."},
	RefusedMethod:     {status: 405, detail: "Callbacks are taken by POST."},
	RefusedUnknownApp: {status: 401, detail: notVerified, unverified: true},
	RefusedSignature:  {status: 401, detail: notVerified, unverified: true},
	RefusedTooOld:     {status: 401, detail: notVerified, unverified: true},
	RefusedTooNew:     {status: 401, detail: notVerified, unverified: true},
	RefusedReplay:     {status: 401, detail: notVerified},
	RefusedUnreadable: {status: 400, genuine: "genuine callback refused"},
	Unavailable:       {status: 503, detail: "The callback can't be taken now. Try again.", genuine: "callback not taken, ZEGO has to send it again"},
}

// Outcomes returns all outcomes that [Options].Observe is called with, by event.
func Outcomes() map[string][]Outcome { return outcomes }

var outcomes = func() map[string][]Outcome {
	stored := []Outcome{Outcome(Stored), Outcome(Queued), Outcome(Ignored), RefusedUnreadable, Unavailable}
	all := map[string][]Outcome{
		zego.EventRoomClose:    {Outcome(Started), Outcome(Duplicate), Outcome(Queued), RefusedUnreadable, Unavailable},
		zego.EventRoomCreate:   stored,
		zego.EventRoomLogin:    stored,
		zego.EventRoomLogout:   stored,
		zego.EventStreamCreate: stored,
		zego.EventStreamClose:  stored,
		zego.EventRecording:    stored,
		otherEvent:             {Outcome(Ignored), Outcome(Started), Outcome(Signaled), Outcome(Duplicate), Outcome(Queued), Unavailable},
	}
	for outcome, a := range answers {
		if a.genuine == "" {
			all[""] = append(all[""], outcome)
		}
	}
	return all
}()

// refusal is an error that refuses a request.
type refusal struct {
	outcome Outcome
	cause   error // may be nil
}

// Error implements error.
func (r *refusal) Error() string {
	if r.cause == nil {
		return string(r.outcome)
	}
	return r.cause.Error()
}

// Unwrap returns the cause.
func (r *refusal) Unwrap() error { return r.cause }

// refuse returns an error that refuses a request with that outcome, unless the cause
// itself refuses it with another.
func refuse(outcome Outcome, cause error) *refusal {
	if already := new(refusal); errors.As(cause, &already) {
		return already
	}
	return &refusal{outcome, cause}
}

// verifyOutcome returns the outcome of a callback that isn't verified.
func verifyOutcome(err error) Outcome {
	switch {
	case errors.Is(err, zego.ErrUnknownApp):
		return RefusedUnknownApp
	case errors.Is(err, zego.ErrTooOld):
		return RefusedTooOld
	case errors.Is(err, zego.ErrTooNew):
		return RefusedTooNew
	}
	return RefusedSignature
}

// Problem answers with a problem document (RFC 9457). The detail is shown to the
// caller.
func Problem(w http.ResponseWriter, status int, detail string) {
	problem{Status: status, Detail: detail}.write(w)
}

// problem is a problem document (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Field is the field of the callback that is at fault.
	Field string `json:"field,omitempty"`
}

func (p problem) write(w http.ResponseWriter) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	writeJSON(w, p.Status, "application/problem+json", p)
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header()["Content-Type"] = []string{contentType}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the sender may be gone
}
