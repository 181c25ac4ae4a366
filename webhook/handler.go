package webhook

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/closeouthq/closeout/zego"
)

type handler struct {
	Options
	signatures *signatures
	limiter    *limiter
	bodies     *bodies
}

// exchange collects data about one request for its log line and metrics.
type exchange struct {
	began time.Time
	event string // as in Options.Observe
	large bool   // the body is larger than smallBody
	attrs []slog.Attr
}

func newExchange(r *http.Request, attrs ...slog.Attr) *exchange {
	e := &exchange{began: time.Now(), attrs: make([]slog.Attr, 0, 12)}
	e.add(slog.String("remote", r.RemoteAddr))
	e.add(attrs...)
	return e
}

func (e *exchange) add(attrs ...slog.Attr) { e.attrs = append(e.attrs, attrs...) }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := newExchange(r)
	receipt, err := h.accept(w, r, e)
	if err != nil {
		h.refuse(w, r, e, err)
		return
	}
	level := slog.LevelInfo
	if receipt.Status == Queued {
		// In a burst, writing these lines would take as long as syncing the inbox.
		level = slog.LevelDebug
	}
	took := time.Since(e.began)
	e.add(slog.Duration("took", took), slog.String("outcome", string(receipt.Status)), slog.String("workflow_id", receipt.WorkflowID))
	h.Log.LogAttrs(r.Context(), level, "callback accepted", e.attrs...)
	h.Observe(e.event, Outcome(receipt.Status), took)
	writeJSON(w, http.StatusOK, "application/json", receipt)
}

// accept reads and verifies a callback and passes it to the receiver. It frees the memory
// of the body before it returns.
func (h *handler) accept(w http.ResponseWriter, r *http.Request, e *exchange) (Receipt, error) {
	body, err := h.bodies.read(w, r)
	defer body.close()
	e.large = len(body.data) > smallBody
	if err != nil {
		return Receipt{}, err
	}
	callback, err := zego.Scan(r.Header.Get("Content-Type"), body.data)
	if err != nil {
		h.observeFault(e, err)
		return Receipt{}, refuse(RefusedMalformed, err)
	}
	head := &callback.Common
	e.add(slog.String("event", head.Event), slog.Uint64("appid", uint64(head.AppID)), slog.Int64("timestamp", head.Timestamp))
	if err := h.Keyring.Verify(head); err != nil {
		return Receipt{}, refuse(verifyOutcome(err), nil)
	}
	markGenuine(r.Context())

	event, err := callback.Parse()
	if err != nil {
		event = callback.Unreadable(err)
	}
	body.freeData() // the event has its own copies
	head = event.Head()
	done, ok := h.signatures.claim(head.AppID, head.Signature, head.Fingerprint, err != nil)
	if !ok {
		return Receipt{}, refuse(RefusedReplay, nil)
	}
	accepted := false
	defer func() { done(accepted) }()
	e.event = label(event, head.Event)
	if err != nil {
		h.observeFault(e, err)
		_, fault := h.receive(r.Context(), event)
		if accepted = fault == nil; !accepted {
			h.Log.Error("refused callback not stored", "event", head.Event, "appid", head.AppID, "error", fault)
		}
		return Receipt{}, refuse(RefusedUnreadable, err)
	}
	e.add(about(event)...)
	var unknown []string
	for _, f := range callback.Unknown {
		h.ObserveField(e.event, fieldLabel(f.Field), false)
		unknown = append(unknown, f.Field+": "+f.Problem)
	}
	if len(unknown) > 0 {
		e.add(slog.Any("unknown", unknown))
	}
	receipt, err := h.receive(r.Context(), event)
	if err != nil {
		return Receipt{}, refuse(Unavailable, err)
	}
	accepted = true
	return receipt, nil
}

// receive passes the event to the receiver. It goes on if the sender hangs up.
func (h *handler) receive(ctx context.Context, event zego.Event) (Receipt, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.AnswerWithin)
	defer cancel()
	return h.Receiver.Receive(ctx, event)
}

// observeFault counts the field for which a callback is refused.
func (h *handler) observeFault(e *exchange, err error) {
	if field := new(zego.FieldError); errors.As(err, &field) {
		h.ObserveField(e.event, fieldLabel(field.Field), true)
	}
}

// fieldLabel returns the field's name without the index of a list's element.
func fieldLabel(field string) string {
	before, rest, _ := strings.Cut(field, "[")
	_, after, _ := strings.Cut(rest, "]")
	return before + after
}

// otherEvent is the label of all events without a type in package zego.
const otherEvent = "other"

// label returns the event's name for metrics.
func label(event zego.Event, name string) string {
	if _, other := event.(*zego.Other); other || Outcomes()[name] == nil {
		return otherEvent
	}
	return name
}

// about returns the log attributes that identify an event.
func about(event zego.Event) []slog.Attr {
	session := func(roomID string, roomSessionID uint64) []slog.Attr {
		return []slog.Attr{slog.String("room_id", roomID), slog.String("room_session_id", strconv.FormatUint(roomSessionID, 10))}
	}
	switch e := event.(type) {
	case *zego.RoomClose:
		return session(e.RoomID, e.RoomSessionID)
	case *zego.RoomCreate:
		return session(e.RoomID, e.RoomSessionID)
	case *zego.RoomLogin:
		return session(e.RoomID, e.RoomSessionID)
	case *zego.RoomLogout:
		return session(e.RoomID, e.RoomSessionID)
	case *zego.StreamCreate:
		return session(e.RoomID, e.RoomSessionID)
	case *zego.StreamClose:
		return session(e.RoomID, e.RoomSessionID)
	case *zego.Recording:
		return []slog.Attr{slog.String("room_id", e.RoomID), slog.String("task_id", e.TaskID), slog.Uint64("event_type", uint64(e.EventType))}
	}
	return nil
}

// refuse logs, counts and answers a refused request.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, e *exchange, err error) {
	refused := refuse(RefusedMalformed, err)
	outcome, took := refused.outcome, time.Since(e.began)
	a := answers[outcome]
	if refused.cause != nil {
		e.add(slog.Any("error", refused.cause))
	}
	e.add(slog.String("outcome", string(outcome)))
	if a.genuine != "" {
		h.Log.LogAttrs(r.Context(), slog.LevelError, a.genuine, e.attrs...)
	} else if unlogged, ok := h.limiter.line(r.RemoteAddr, outcome); ok {
		h.Log.LogAttrs(r.Context(), slog.LevelWarn, "callback refused", append(e.attrs, slog.Int64("unlogged", unlogged))...)
	}
	h.Observe(e.event, outcome, took)

	if outcome == RefusedCrowded {
		// ZEGO repeats a recording callback only if it gets no response.
		panic(http.ErrAbortHandler)
	}
	p := problem{Status: a.status, Detail: a.detail}
	if field := new(zego.FieldError); errors.As(err, &field) {
		p.Field = field.Field
	}
	if p.Detail == "" {
		p.Detail = refused.cause.Error()
	}
	if (a.unverified || e.large && a.genuine == "") && h.limiter.tooMany(r.RemoteAddr) {
		if p.Status == http.StatusUnauthorized {
			p.Status, p.Detail = http.StatusTooManyRequests, "The callback could not be verified, like many from this address."
		}
		hold(r.Context(), holdFailures+rand.N(holdFailures))
	}
	switch p.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", retryAfter)
	case http.StatusUnsupportedMediaType:
		w.Header().Set("Accept-Encoding", "gzip")
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	case http.StatusRequestEntityTooLarge:
		// If the connection were closed while the sender still writes, it would not read the
		// answer.
		_, _ = io.CopyN(io.Discard, r.Body, drainBody)
	}
	p.write(w)
}

// hold waits for d, or until the sender hangs up.
func hold(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (h *handler) notFound(w http.ResponseWriter, r *http.Request) {
	// Perhaps the address in ZEGO's console is mistyped: in another case, without a
	// gateway's prefix, or with a letter missing.
	outcome, path := RefusedElsewhere, strings.ToLower(r.URL.Path)
	if strings.Contains(path, "zego") || strings.Contains(path, "callback") {
		outcome = RefusedPath
	}
	h.refuse(w, r, newExchange(r, slog.String("path", redact(r.URL.Path))), refuse(outcome, nil))
}

func (h *handler) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	h.refuse(w, r, newExchange(r, slog.String("method", clip(r.Method))), refuse(RefusedMethod, nil))
}

// redact returns a path for the log. It hides each segment that may be the token, that is,
// any segment that doesn't resemble a segment of [Path].
func redact(path string) string {
	segments := strings.Split(clip(path), "/")
	for i, s := range segments {
		lower := strings.ToLower(s)
		if s != "" && (len(s) > len("callbacks")+1 || !strings.HasPrefix(lower, "zego") && !strings.HasPrefix(lower, "call")) {
			segments[i] = "*"
		}
	}
	return strings.Join(segments, "/")
}

// clip shortens foreign text for the log.
func clip(s string) string { return s[:min(len(s), maxLogged)] }
