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
	// Name is what people call it, in the errors that they read: "the billing API".
	Name string
	// URL takes the posts.
	URL string
	// Token, if not empty, is sent as a bearer token.
	Token string
	// ContentType is that of the posts; application/json unless set.
	ContentType string
	// Client sends them; unless set, one that doesn't follow redirects.
	Client *http.Client
}

// At is the endpoint at a path below its URL, such as "charges".
func (e Endpoint) At(path string) Endpoint {
	// Post reports a URL that is none.
	if joined, err := url.JoinPath(e.URL, path); err == nil {
		e.URL = joined
	}
	return e
}

// direct doesn't follow redirects: what is posted elsewhere could be taken for
// done, and the token would leak.
var direct = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 1 << 20

// Post posts body as JSON under an Idempotency-Key and, unless answer is nil,
// decodes what comes back into it. Its errors are ready to be returned by a step:
//
//   - 2xx is done, and so is 409 where no answer is wanted: it was done before;
//   - 408, 429, 5xx and all that is no answer are worth another try, after the
//     Retry-After if there is one; so is 409 where an answer is wanted, as the
//     first post of the key may still be worked on;
//   - any other 4xx blocks the step, and shows people what was said; a [*Refusal]
//     is in the error, for steps that know better.
func (e Endpoint) Post(ctx context.Context, key uuid.UUID, body, answer any) error {
	if e.URL == "" {
		return Blockedf("%s has no URL", cmp.Or(e.Name, "an endpoint"))
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return Blockedf("encode what is for %s: %w", e.Name, err)
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
	// Reading it all lets the connection be used again.
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	shown := printable.Foreign(string(said), 500)
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode)) // not in the server's own words, which may be any

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
		// Of the 4xx these say that it is worth trying again.
	case code/100 == 4:
		return Blockedf("%w", &Refusal{Name: e.Name, Status: code, Body: shown})
	}
	if pause := retryAfter(resp); pause > 0 {
		return RetryAfterf(pause, "%s failed: %s: %s", e.Name, status, shown)
	}
	return fmt.Errorf("%s failed: %s: %s", e.Name, status, shown)
}

// trace begins a span for a post and sends its trace parent, if the step is traced.
// The URL is not in it, as it may hold a key.
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

// Refusal is the answer of an [Endpoint] that won't be another one by trying
// again. A step may find it in the error by [errors.As], and make another kind of
// failure of it.
type Refusal struct {
	// Name is the endpoint's.
	Name string
	// Status is HTTP's, a 4xx.
	Status int
	// Body is the beginning of the answer, in a line.
	Body string
}

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s refused it: %d %s: %s", r.Name, r.Status, http.StatusText(r.Status), r.Body)
}

// bare takes the URL out of an error, as it may hold a key.
func bare(err error) error {
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// retryAfter is for how long the API asks to be left alone, up to an hour; 0 if
// it doesn't.
func retryAfter(resp *http.Response) time.Duration {
	seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, time.Hour)
}
