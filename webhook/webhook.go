package webhook

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/closeouthq/closeout/zego"
)

// Path is where callbacks are posted to, followed by "/" and the token if there
// is one.
const Path = "/zego/callbacks"

// HooksPath is the path below which a [Router] has the endpoints of
// [Options.Hooks].
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
	// Status is what the sender is told.
	Status Status `json:"status"`
	// WorkflowID is the ID of the workflow that closes the session out.
	WorkflowID string `json:"workflow_id,omitempty"`
}

// Status is the outcome of a callback that was accepted.
type Status string

// The outcomes of a callback that was accepted.
const (
	// Started means that a workflow was started for the session.
	Started Status = "started"
	// Duplicate means that the session had its workflow already.
	Duplicate Status = "duplicate"
	// Stored means that the ledger has it.
	Stored Status = "stored"
	// Queued means that it is on the disk until Temporal or the ledger takes it.
	Queued Status = "queued"
	// Ignored means that the callback is genuine and that there is no use for it.
	Ignored Status = "ignored"
)

// Outcome is what became of a request, for logs and metrics: a [Status], or one
// of the refusals.
type Outcome string

// The refusals.
const (
	// RefusedMalformed means that the body was no callback (400).
	RefusedMalformed Outcome = "malformed"
	// RefusedUnreadable means that the callback is genuine, and that a field without
	// which it is no use is missing or can't be read (400).
	RefusedUnreadable Outcome = "unreadable"
	// RefusedUnread means that the body didn't arrive whole (400).
	RefusedUnread Outcome = "unread"
	// RefusedTooLarge means that the body had more than [MaxBody] bytes (413).
	RefusedTooLarge Outcome = "too_large"
	// RefusedEncoding means that the body has a Content-Encoding that isn't read (415).
	RefusedEncoding Outcome = "encoding"
	// RefusedCrowded means that the body was large, and was being read for longest when
	// others needed the memory (503). No room_close is so large.
	RefusedCrowded Outcome = "crowded"
	// RefusedPath means that the path looks like that of callbacks and isn't, or that
	// the token in it was missing or wrong, or that there is none in the options (404).
	RefusedPath Outcome = "wrong_path"
	// RefusedElsewhere means another path (404), and RefusedMethod another method than
	// POST (405).
	RefusedElsewhere Outcome = "not_found"
	RefusedMethod    Outcome = "wrong_method"
	// RefusedUnknownApp means that there is no secret for its appid (401, or 429 where
	// much from there can't be verified; so the following).
	RefusedUnknownApp Outcome = "unknown_app"
	// RefusedSignature means that its signature was wrong (401).
	RefusedSignature Outcome = "bad_signature"
	// RefusedTooOld and RefusedTooNew mean that its timestamp was out of the
	// window (401): an old callback sent again, or a clock that is wrong.
	RefusedTooOld Outcome = "too_old"
	RefusedTooNew Outcome = "too_new"
	// RefusedReplay means that its signature came with another body before (401).
	RefusedReplay Outcome = "replay"
	// Unavailable means that the intake could not take it (503).
	Unavailable Outcome = "unavailable"
)

// Outcomes are all that [Options].Observe is told, by event.
func Outcomes() map[string][]Outcome {
	collected := []Outcome{Outcome(Stored), Outcome(Queued), Outcome(Ignored), RefusedUnreadable, Unavailable}
	return map[string][]Outcome{
		zego.EventRoomClose:  {Outcome(Started), Outcome(Duplicate), Outcome(Queued), RefusedUnreadable, Unavailable},
		zego.EventRoomCreate: collected,
		zego.EventRoomLogin:  collected,
		zego.EventRoomLogout: collected,
		zego.EventRecording:  collected,
		otherEvent:           {Outcome(Ignored)},
		"": {RefusedPath, RefusedElsewhere, RefusedMethod, RefusedMalformed, RefusedUnread, RefusedTooLarge, RefusedEncoding, RefusedCrowded, RefusedUnknownApp,
			RefusedSignature, RefusedTooOld, RefusedTooNew, RefusedReplay},
	}
}

// otherEvent stands for all events that have no type in package zego.
const otherEvent = "other"

// Options are what a [Router] needs.
type Options struct {
	// Keyring verifies callbacks.
	Keyring *zego.Keyring
	// Receiver takes each verified callback.
	Receiver Receiver
	// Token, if not empty, is a secret last segment of the path: a second lock,
	// as ZEGO's signature doesn't cover the body.
	Token string
	// AnswerWithin is how long the intake may take; 0 stands for [AnswerWithin].
	AnswerWithin time.Duration
	// Hooks, if set, serves the paths below [HooksPath], with the listener's limits.
	Hooks http.Handler
	// Log gets a line for each callback, but of those that are refused only the
	// first of many: the next line says how many there were.
	Log *slog.Logger
	// Observe, if set, is told the event, the outcome and the duration of each
	// request. The event is one that has a type in package zego, "other", or empty
	// for a request that was refused: nobody can make up more.
	Observe func(event string, outcome Outcome, took time.Duration)
	// ObserveField, if set, is told of each field that could not be read, and whether
	// the callback was refused for it. The event is as in Observe; fields have the
	// names that package zego reads.
	ObserveField func(event, field string, refused bool)
}

// Router serves the callbacks, and answers everything else with a problem
// document (RFC 9457).
func Router(o Options) http.Handler {
	if o.AnswerWithin == 0 {
		o.AnswerWithin = AnswerWithin
	}
	if o.Keyring == nil {
		o.Keyring = new(zego.Keyring)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Observe == nil {
		o.Observe = func(string, Outcome, time.Duration) {}
	}
	if o.ObserveField == nil {
		o.ObserveField = func(string, string, bool) {}
	}
	// A timestamp may be as far ahead as it may be behind.
	keep := cmp.Or(2*o.Keyring.Window(), rememberAlways)
	h := &handler{Options: o, seen: newSignatures(keep, rememberSignatures, time.Now), refusals: newRefusals(), bodies: newBodies(bodyRoom)}

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

// plainPath is the path without what certainly means nothing: slashes that are
// repeated, as where a base with one behind it was joined to ours, and one behind it.
func plainPath(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return strings.TrimSuffix(path, "/")
}

type handler struct {
	Options
	seen     *signatures
	refusals *refusals
	bodies   *bodies
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	// What is known of the request, for its one line in the log.
	known := make([]slog.Attr, 0, 10)
	known = append(known, slog.String("remote", r.RemoteAddr))
	refuse := func(outcome Outcome, p problem, why ...slog.Attr) {
		h.refuse(w, r, began, outcome, p, append(known, why...)...)
	}

	body, err := h.bodies.read(w, r)
	defer body.close()
	if err != nil {
		outcome, p := h.unread(err)
		switch p.Status {
		case http.StatusServiceUnavailable:
			w.Header().Set("Retry-After", retryAfter)
		case http.StatusUnsupportedMediaType:
			w.Header().Set("Accept-Encoding", "gzip")
		case http.StatusRequestEntityTooLarge:
			// Whoever is still writing when the connection is closed never reads the answer.
			_, _ = io.CopyN(io.Discard, r.Body, drainBody)
		}
		refuse(outcome, p, slog.Any("error", err))
		return
	}

	callback, err := zego.Scan(r.Header.Get("Content-Type"), body.data)
	if err != nil {
		refuse(RefusedMalformed, h.unreadable("", err), slog.Any("error", err))
		return
	}
	head := &callback.Common
	known = append(known, slog.String("event", head.Event), slog.Uint64("appid", uint64(head.AppID)))
	if outcome := h.verify(head); outcome != "" {
		h.note(r, began, outcome, append(known, slog.Int64("timestamp", head.Timestamp))...)
		p := problem{Status: http.StatusUnauthorized, Detail: notVerified}
		if h.refusals.tooMany(r.RemoteAddr) {
			w.Header().Set("Retry-After", retryAfter)
			p = problem{Status: http.StatusTooManyRequests, Detail: "The callback could not be verified, like many from this address."}
			body.close() // not even its memory waits
			hold(r.Context(), holdFailures)
		}
		p.write(w)
		return
	}
	proved(r.Context())

	event, err := callback.Parse()
	body.close() // the event has copies of what it needs
	if err != nil {
		// ZEGO's own word can't be used: that is for a person to see.
		p := h.unreadable(eventLabel(head.Event), err)
		known = append(known, slog.String("outcome", string(RefusedUnreadable)), slog.Any("error", err))
		h.Log.LogAttrs(r.Context(), slog.LevelError, "genuine callback refused", known...)
		h.keep(r.Context(), callback.Unreadable(err))
		h.Observe(eventLabel(head.Event), RefusedUnreadable, time.Since(began))
		p.write(w)
		return
	}
	head = event.Head()
	claimed, ok := h.seen.claim(head.AppID, head.Signature, head.Fingerprint)
	if !ok {
		known = append(known, slog.Int64("timestamp", head.Timestamp))
		refuse(RefusedReplay, problem{Status: http.StatusUnauthorized, Detail: notVerified})
		return
	}
	for _, f := range callback.Unknown {
		h.ObserveField(eventLabel(head.Event), fieldLabel(f.Field), false)
	}
	if len(callback.Unknown) > 0 {
		known = append(known, slog.Any("unknown", unknownOf(callback)))
	}

	taken := false
	defer func() { claimed(taken) }()
	receipt, err := h.receive(r.Context(), event)
	taken = err == nil
	took := time.Since(began)
	known = append(known, slog.Duration("took", took))
	if roomID, session, ok := sessionOf(event); ok {
		known = append(known, slog.String("room_id", roomID), slog.String("room_session_id", strconv.FormatUint(session, 10)))
	} else if r, ok := event.(*zego.Recording); ok {
		known = append(known, slog.String("room_id", r.RoomID), slog.String("task_id", r.TaskID), slog.Uint64("event_type", uint64(r.EventType)))
	}
	if err != nil {
		h.Log.LogAttrs(r.Context(), slog.LevelError, "callback not taken, ZEGO has to try again",
			append(known, slog.String("outcome", string(Unavailable)), slog.Any("error", err))...)
		h.Observe(label(event), Unavailable, took)
		w.Header().Set("Retry-After", retryAfter)
		problem{Status: http.StatusServiceUnavailable, Detail: "The callback can't be taken now. Try again."}.write(w)
		return
	}
	level := slog.LevelInfo
	if receipt.Status == Queued {
		// In a burst the lines would cost as much as the disk does. Who queues it says
		// so when it gets on.
		level = slog.LevelDebug
	}
	h.Log.LogAttrs(r.Context(), level, "callback accepted",
		append(known, slog.String("outcome", string(receipt.Status)), slog.String("workflow_id", receipt.WorkflowID))...)
	h.Observe(label(event), Outcome(receipt.Status), took)
	writeJSON(w, http.StatusOK, "application/json", receipt)
}

// unread returns what an error of reading a body means.
func (h *handler) unread(err error) (Outcome, problem) {
	tooLarge := new(http.MaxBytesError)
	switch {
	case errors.Is(err, errCrowded):
		return RefusedCrowded, problem{Status: http.StatusServiceUnavailable, Detail: "Many large callbacks are being read. Try again."}
	case errors.Is(err, errEncodings):
		return RefusedEncoding, problem{Status: http.StatusUnsupportedMediaType, Detail: "Content-Encoding: want gzip, or none."}
	case errors.Is(err, errInflated):
		return RefusedTooLarge, problem{Status: http.StatusRequestEntityTooLarge, Detail: "The body is too large once it is decompressed."}
	case errors.As(err, &tooLarge):
		return RefusedTooLarge, problem{Status: http.StatusRequestEntityTooLarge, Detail: "The body has more than 1 MiB."}
	case errors.Is(err, errNotGzip):
		return RefusedMalformed, problem{Status: http.StatusBadRequest, Detail: "Content-Encoding is gzip, and the body is not."}
	}
	return RefusedUnread, problem{Status: http.StatusBadRequest, Detail: "The body did not arrive whole, or too slowly."}
}

// verify gives the reason for which a callback is not to be believed, or none.
func (h *handler) verify(head *zego.Common) Outcome {
	err := h.Keyring.Verify(head)
	switch {
	case errors.Is(err, zego.ErrUnknownApp):
		return RefusedUnknownApp
	case errors.Is(err, zego.ErrTooOld):
		return RefusedTooOld
	case errors.Is(err, zego.ErrTooNew):
		return RefusedTooNew
	case err != nil:
		return RefusedSignature
	}
	return ""
}

// keep has the receiver store that a genuine callback was refused. Whether it can
// doesn't change the answer: ZEGO sends the callback again.
func (h *handler) keep(ctx context.Context, u *zego.Unreadable) {
	if _, err := h.receive(ctx, u); err != nil {
		h.Log.Error("refused callback not stored", "event", u.Event, "appid", u.AppID, "error", err)
	}
}

const notVerified = "The callback could not be verified."

// unreadable counts the field that is at fault, and returns the answer that names it.
func (h *handler) unreadable(event string, err error) problem {
	p := problem{Status: http.StatusBadRequest, Detail: err.Error()}
	if field := new(zego.FieldError); errors.As(err, &field) {
		p.Field = field.Field
		h.ObserveField(event, fieldLabel(field.Field), true)
	}
	return p
}

// fieldLabel is the field's name without the index of a list's element.
func fieldLabel(field string) string {
	before, rest, ok := strings.Cut(field, "[")
	if _, after, closed := strings.Cut(rest, "]"); ok && closed {
		return before + after
	}
	return field
}

// unknownOf lists what of the callback could not be read, for the log.
func unknownOf(c *zego.Callback) []string {
	all := make([]string, len(c.Unknown))
	for i, f := range c.Unknown {
		all[i] = f.Field + ": " + f.Problem
	}
	return all
}

// receive hands the event to the receiver.
func (h *handler) receive(ctx context.Context, event zego.Event) (Receipt, error) {
	// A sender that hangs up doesn't take its callback back.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.AnswerWithin)
	defer cancel()
	return h.Receiver.Receive(ctx, event)
}

// label names the event's kind, for metrics.
func label(event zego.Event) string {
	if _, other := event.(*zego.Other); other {
		return otherEvent
	}
	return event.Head().Event
}

// eventLabel is label for a callback whose event could not be read.
func eventLabel(event string) string {
	if _, known := Outcomes()[event]; known {
		return event
	}
	return otherEvent
}

// sessionOf tells which session the event is of, if that is known.
func sessionOf(event zego.Event) (roomID string, roomSessionID uint64, ok bool) {
	switch e := event.(type) {
	case *zego.RoomClose:
		return e.RoomID, e.RoomSessionID, true
	case *zego.RoomCreate:
		return e.RoomID, e.RoomSessionID, true
	case *zego.RoomLogin:
		return e.RoomID, e.RoomSessionID, true
	case *zego.RoomLogout:
		return e.RoomID, e.RoomSessionID, true
	}
	return "", 0, false
}

// hold waits, unless the sender doesn't.
func hold(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// refuse answers a request, and tells why where it is told.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, began time.Time, outcome Outcome, p problem, known ...slog.Attr) {
	h.note(r, began, outcome, known...)
	p.write(w)
}

// note tells why a request is refused.
func (h *handler) note(r *http.Request, began time.Time, outcome Outcome, known ...slog.Attr) {
	if unlogged, ok := h.refusals.line(r.RemoteAddr, outcome); ok {
		h.Log.LogAttrs(r.Context(), slog.LevelWarn, "callback refused",
			append(known, slog.String("outcome", string(outcome)), slog.Int64("unlogged", unlogged))...)
	}
	h.Observe("", outcome, time.Since(began))
}

func (h *handler) notFound(w http.ResponseWriter, r *http.Request) {
	// It may be ZEGO, with an address that somebody mistyped.
	outcome := RefusedPath
	if !oursPerhaps(r.URL.Path) {
		outcome = RefusedElsewhere
	}
	h.refuse(w, r, time.Now(), outcome, problem{Status: http.StatusNotFound, Detail: "There is nothing at this path."},
		slog.String("remote", r.RemoteAddr), slog.String("path", shown(r.URL.Path)))
}

func (h *handler) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", http.MethodPost)
	h.refuse(w, r, time.Now(), RefusedMethod, problem{Status: http.StatusMethodNotAllowed, Detail: "Callbacks are taken by POST."},
		slog.String("remote", r.RemoteAddr), slog.String("method", r.Method))
}

// oursPerhaps reports whether a path looks like one that is meant for callbacks: in
// another case, behind a gateway's prefix, or with a letter missing.
func oursPerhaps(path string) bool {
	path = strings.ToLower(path)
	return strings.Contains(path, "zego") || strings.Contains(path, "callback")
}

// shown is a path for the log. It shows what can't be the token, nor nearly so:
// segments that begin as those of [Path] do.
func shown(path string) string {
	segments := strings.Split(path[:min(len(path), 200)], "/")
	for i, s := range segments {
		if lower := strings.ToLower(s); s != "" && (len(s) > len("callbacks")+1 || !strings.HasPrefix(lower, "zego") && !strings.HasPrefix(lower, "call")) {
			segments[i] = "*"
		}
	}
	return strings.Join(segments, "/")
}

// Problem answers with a problem document (RFC 9457). Hooks may use it, too. The
// detail is for the caller, and no secret.
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
	_ = json.NewEncoder(w).Encode(v) // The sender may be gone, which is its affair.
}
