package webhook

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/closeouthq/closeout/zego"
)

// Outcome is the outcome of a request for logs and metrics: a [Status] or one of the
// refusals.
type Outcome string

// The refusals, with their HTTP status.
const (
	// RefusedMalformed means that the body is not a callback (400).
	RefusedMalformed Outcome = "malformed"
	// RefusedUnreadable means that the callback is genuine, but a required field is missing
	// or can't be read (400).
	RefusedUnreadable Outcome = "unreadable"
	// RefusedUnread means that the body didn't arrive completely (400).
	RefusedUnread Outcome = "unread"
	// RefusedTooLarge means that the body has more than [MaxBody] bytes (413).
	RefusedTooLarge Outcome = "too_large"
	// RefusedEncoding means that the body's Content-Encoding isn't supported (415).
	RefusedEncoding Outcome = "encoding"
	// RefusedCrowded means that the body is large, and that other bodies needed its memory
	// while it had been read for longest. The connection is closed without a response,
	// because ZEGO repeats a recording callback only then. No room_close is that large.
	RefusedCrowded Outcome = "crowded"
	// RefusedPath means that the path resembles [Path], or that the token is missing or
	// wrong (404).
	RefusedPath Outcome = "wrong_path"
	// RefusedElsewhere means any other path (404), and RefusedMethod another method than
	// POST (405).
	RefusedElsewhere Outcome = "not_found"
	RefusedMethod    Outcome = "wrong_method"
	// RefusedUnknownApp means that there is no secret for the appid. This refusal and the
	// following ones are answered 401, or 429 after too many of them from one source.
	RefusedUnknownApp Outcome = "unknown_app"
	// RefusedSignature means that the signature is wrong.
	RefusedSignature Outcome = "bad_signature"
	// RefusedTooOld and RefusedTooNew mean that the timestamp is outside the window: an
	// old callback sent again, or a wrong clock.
	RefusedTooOld Outcome = "too_old"
	RefusedTooNew Outcome = "too_new"
	// RefusedReplay means that the signature has been used with another body (always 401).
	RefusedReplay Outcome = "replay"
	// Unavailable means that the receiver could not accept the callback (503).
	Unavailable Outcome = "unavailable"
)

const notVerified = "The callback could not be verified."

// answers maps refusals to their answers.
var answers = map[Outcome]struct {
	status     int
	detail     string // empty means the text of the error
	genuine    string // log message if the callback is genuine; empty if anybody may have sent it
	unverified bool   // too many of them are answered late
}{
	RefusedMalformed:  {status: 400},
	RefusedUnread:     {status: 400, detail: "The body arrived incomplete or too slowly."},
	RefusedTooLarge:   {status: 413, detail: "The body has more than 1 MiB, or too much once it is decompressed."},
	RefusedEncoding:   {status: 415, detail: "Content-Encoding: want gzip, or none."},
	RefusedCrowded:    {}, // no answer
	RefusedPath:       {status: 404, detail: "There is nothing at this path."},
	RefusedElsewhere:  {status: 404, detail: "There is nothing at this path."},
	RefusedMethod:     {status: 405, detail: "Send callbacks with POST."},
	RefusedUnknownApp: {status: 401, detail: notVerified, unverified: true},
	RefusedSignature:  {status: 401, detail: notVerified, unverified: true},
	RefusedTooOld:     {status: 401, detail: notVerified, unverified: true},
	RefusedTooNew:     {status: 401, detail: notVerified, unverified: true},
	RefusedReplay:     {status: 401, detail: notVerified},
	RefusedUnreadable: {status: 400, genuine: "genuine callback refused"},
	Unavailable:       {status: 503, detail: "The callback can't be accepted now. Try again.", genuine: "callback not accepted, ZEGO must retry"},
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

// refuse returns a refusal with the outcome, or the refusal that cause already is.
func refuse(outcome Outcome, cause error) *refusal {
	if already := new(refusal); errors.As(cause, &already) {
		return already
	}
	return &refusal{outcome, cause}
}

// verifyOutcome returns the outcome for an error of [zego.Keyring.Verify].
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

// Problem answers with a problem document (RFC 9457). The caller can read the detail.
func Problem(w http.ResponseWriter, status int, detail string) {
	problem{Status: status, Detail: detail}.write(w)
}

// problem is a problem document (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Field is the callback's faulty field.
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
