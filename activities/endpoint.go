package activities

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/closeouthq/closeout/internal/printable"
)

// Endpoint is an HTTP API that a step posts to.
type Endpoint struct {
	// Name names the API in errors, such as "the billing API".
	Name string
	// URL is the address to post to.
	URL string
	// Token, if not empty, is sent as a bearer token.
	Token string
	// ContentType is the Content-Type of requests. Default: application/json.
	ContentType string
	// Client sends the requests. Default: a client that doesn't follow redirects.
	Client *http.Client
}

// At returns the endpoint at a path below e's URL, such as "charges".
func (e Endpoint) At(path string) Endpoint {
	// Post reports an invalid URL.
	if joined, err := url.JoinPath(e.URL, path); err == nil {
		e.URL = joined
	}
	return e
}

// direct doesn't follow redirects, because another server could answer 200 without doing
// anything, and would get the token.
var direct = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// maxAnswer bounds the bytes of an answer that Post reads.
const maxAnswer = 1 << 20

// Post posts body as JSON with an Idempotency-Key. Unless answer is nil, it decodes the
// response into answer. A step can return Post's errors as they are:
//
//   - 2xx is success. So is 409 if answer is nil: the request was done before.
//   - 408, 429, 5xx, and a response that is missing or can't be decoded are retried, after
//     Retry-After if the response has it. So is 409 if answer is not nil, because the API
//     may still be working on the first request with the key.
//   - Any other 4xx blocks the step and shows the response to the operator. The error wraps
//     a [*Refusal], so that a step can return another kind of error instead.
func (e Endpoint) Post(ctx context.Context, key uuid.UUID, body, answer any) error {
	if e.URL == "" {
		return Blockedf("%s has no URL", cmp.Or(e.Name, "an endpoint"))
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return Blockedf("encode the request to %s: %w", e.Name, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(encoded))
	if err != nil {
		return Blockedf("make a request to %s: %w", e.Name, bare(err))
	}
	req.Header.Set("Content-Type", cmp.Or(e.ContentType, "application/json"))
	req.Header.Set("Idempotency-Key", key.String())
	if e.Token != "" {
		req.Header.Set("Authorization", "Bearer "+e.Token)
	}
	req, span := e.trace(req)
	defer span.End()
	resp, err := cmp.Or(e.Client, direct).Do(req)
	if err != nil {
		span.SetStatus(codes.Error, bare(err).Error())
		return fmt.Errorf("post to %s: %w", e.Name, bare(err))
	}
	defer resp.Body.Close()
	span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	if resp.StatusCode >= 400 {
		span.SetStatus(codes.Error, "")
	}
	// The connection can be reused only if the body is read to its end.
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	shown := printable.Foreign(string(said), 500)
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode)) // resp.Status may hold any text

	switch code := resp.StatusCode; {
	case code/100 == 2 && answer != nil:
		if err == nil {
			err = json.Unmarshal(said, answer)
		}
		if err != nil {
			return fmt.Errorf("read the answer of %s: %s: %s: %w", e.Name, status, shown, err)
		}
		return nil
	case code/100 == 2, code == http.StatusConflict && answer == nil:
		return nil
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusConflict:
		// These 4xx may succeed later.
	case code/100 == 4:
		return Blockedf("%w", &Refusal{Name: e.Name, Status: code, Body: shown})
	}
	if pause := retryAfter(resp); pause > 0 {
		return RetryAfterf(pause, "%s failed: %s: %s", e.Name, status, shown)
	}
	return fmt.Errorf("%s failed: %s: %s", e.Name, status, shown)
}

// trace starts a span for req and sends its trace parent, if the step is traced. The span
// doesn't contain the URL, which may hold a key.
func (e Endpoint) trace(req *http.Request) (*http.Request, trace.Span) {
	step := trace.SpanFromContext(req.Context())
	if !step.SpanContext().IsValid() {
		return req, step
	}
	ctx, span := step.TracerProvider().Tracer("closeout").Start(req.Context(), "POST "+e.Name, trace.WithSpanKind(trace.SpanKindClient))
	req = req.WithContext(ctx)
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
	return req, span
}

// Refusal is a response of an [Endpoint] that a retry won't change. A step can find it in
// the error with [errors.As] and return another kind of error.
type Refusal struct {
	// Name is the endpoint's Name.
	Name string
	// Status is the HTTP status, a 4xx.
	Status int
	// Body is the beginning of the response, in one line.
	Body string
}

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s refused it: %d %s: %s", r.Name, r.Status, http.StatusText(r.Status), r.Body)
}

// bare removes the URL from an error, because a URL may hold a key.
func bare(err error) error {
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// retryAfter returns the response's Retry-After in seconds, at most an hour, or 0 if it
// has none.
func retryAfter(resp *http.Response) time.Duration {
	seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, time.Hour)
}
