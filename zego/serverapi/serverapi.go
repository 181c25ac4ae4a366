// Package serverapi is a client of ZEGO's server APIs. The APIs identify rooms by name
// only: no answer contains a room_session_id.
package serverapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5" // #nosec G501 -- ZEGO's scheme, not our choice.
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// The addresses of the APIs for rooms, cloud recording and analytics in all regions. Each
// region has its own too, such as https://rtc-api-fra.zego.im.
const (
	DefaultURL   = "https://rtc-api.zego.im"
	RecordingURL = "https://cloudrecord-api.zego.im"
	AnalyticsURL = "https://analytics-api.zego.im"
)

// maxAnswer bounds an answer in bytes. 200 users take a few dozen KB.
const maxAnswer = 4 << 20

// ErrNoSecret means that a [Client] has no secret for the app.
var ErrNoSecret = errors.New("no server secret for the app")

// Client calls ZEGO's server API, version 2.
//
// It delays calls to keep within the documented limits. It doesn't retry. It is safe for
// concurrent use. Its errors contain neither secrets nor signatures.
type Client struct {
	// HTTP makes the requests. The client of New times out after ten seconds and follows no
	// redirects, because a request carries a valid signature.
	HTTP *http.Client

	// Turn, if set, is called before each call whose limit several processes share, and
	// blocks until the call may be made. budget names the app and the limit, and pause is
	// the minimum time between two calls. If Turn is nil, the Client counts only its own
	// calls.
	Turn func(ctx context.Context, budget string, pause time.Duration) error
	// Test lists the apps in ZEGO's test environment, which exists in projects created up
	// to 2021-11-16. It allows DescribeUserNum once a second.
	Test []uint32

	base, recording, analytics *url.URL

	secrets map[uint32][]string
	limits  limits
}

// New returns a client of the API at baseURL, which is [DefaultURL] outside tests. The
// secrets are each app's ServerSecrets, not its CallbackSecrets. If ZEGO refuses the
// signature of the first secret, the client tries the second, so that you can replace a
// secret. The URL must be https, except on localhost, because a forged answer would close
// out rooms.
func New(baseURL string, secrets map[uint32][]string) (*Client, error) {
	base, err := parseURL(baseURL)
	if err != nil {
		return nil, err
	}
	recording, _ := url.Parse(RecordingURL)
	analytics, _ := url.Parse(AnalyticsURL)
	for app, list := range secrets {
		if len(list) == 0 || slices.Contains(list, "") {
			return nil, fmt.Errorf("app %d: no server secret, or an empty one", app)
		}
	}
	return &Client{
		HTTP: &http.Client{
			Timeout:       10 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		base: base, recording: recording, analytics: analytics, secrets: maps.Clone(secrets), limits: limits{next: map[string]time.Time{}},
	}, nil
}

// Recording sets the address of the recording API. Default: [RecordingURL].
func (c *Client) Recording(at string) (err error) {
	c.recording, err = parseURL(at)
	return err
}

// Analytics sets the address of the analytics API. Default: [AnalyticsURL].
func (c *Client) Analytics(at string) (err error) {
	c.analytics, err = parseURL(at)
	return err
}

// parseURL parses the address of an API.
func parseURL(text string) (*url.URL, error) {
	base, err := url.Parse(text)
	if err != nil || base.Host == "" || base.RawQuery != "" || base.User != nil {
		return nil, errors.New("not a URL of a server API, want one such as " + DefaultURL)
	}
	local := slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, base.Hostname())
	if base.Scheme != "https" && !(base.Scheme == "http" && local) {
		return nil, fmt.Errorf("server API at %s://%s: want https, because a forged answer would close out rooms", base.Scheme, base.Host)
	}
	return base, nil
}

// Knows reports whether the client has a secret for the app.
func (c *Client) Knows(appID uint32) bool { return len(c.secrets[appID]) > 0 }

// Sign returns the Signature of a request to the server API (ZEGO's "Calling APIs"): the
// MD5 of appid, nonce, ServerSecret and timestamp in Unix seconds, joined, in lower-case
// hex. The signature covers no other parameter.
func Sign(appID uint32, nonce, secret string, timestamp int64) string {
	sum := md5.Sum(fmt.Appendf(nil, "%d%s%s%d", appID, nonce, secret, timestamp)) // #nosec G401
	return hex.EncodeToString(sum[:])
}

// Error is an answer of the server API that reports a failure.
type Error struct {
	// Action and AppID identify the call.
	Action string
	AppID  uint32
	// Status is the HTTP status. Code is ZEGO's code, or 0 if the answer has none.
	Status int
	Code   int64
	// Message is ZEGO's message, shortened.
	Message string
	// RequestID identifies the request to ZEGO's support.
	RequestID string
}

// Error implements error.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s of app %d: ", e.Action, e.AppID)
	if e.Code == 0 {
		s += fmt.Sprintf("HTTP status %d without an answer of the server API", e.Status)
	} else {
		s += fmt.Sprintf("code %d: %s", e.Code, e.Message)
	}
	if e.RequestID != "" {
		s += " (request " + e.RequestID + ")"
	}
	return s
}

const wrongSignature = 100000005

// NoTask reports whether the recording task doesn't exist.
func (e *Error) NoTask() bool { return e.Code == 300001000 }

// NoRoom reports whether the room doesn't exist.
func (e *Error) NoRoom() bool { return slices.Contains([]int64{50001, 104, 5024}, e.Code) }

// RateLimited reports whether the app or the room made too many calls.
func (e *Error) RateLimited() bool {
	return e.Status == http.StatusTooManyRequests || slices.Contains([]int64{206, 207, 30002, 300000003}, e.Code)
}

// Unauthorized reports whether the app, its secret or this machine's clock is wrong.
func (e *Error) Unauthorized() bool {
	return slices.Contains([]int64{100000001, 100000004, wrongSignature, 100000010, 100000011}, e.Code)
}

// request is one call.
type request struct {
	action string
	query  url.Values
	limits []limit
	at     *url.URL // address of the API; nil means the API for rooms
	body   any      // body of a POST; nil makes a GET
	shared string   // the limit that processes share, see Client.Turn; may be empty
	pause  time.Duration
}

// limit is the minimum pause between two calls of one kind.
type limit struct {
	of    string // what is limited within the app; empty limits the app itself
	pause time.Duration
}

// call makes a request with each of the app's secrets until ZEGO accepts its
// signature, and decodes the answer's Data.
func (c *Client) call(ctx context.Context, appID uint32, r request, data any) error {
	secrets := c.secrets[appID]
	if len(secrets) > 0 && r.shared != "" && c.Turn != nil {
		// Take one turn for all secrets, because with a correct first secret there is only
		// one call.
		if err := c.Turn(ctx, fmt.Sprintf("%d %s", appID, r.shared), r.pause*time.Duration(len(secrets))); err != nil {
			return fmt.Errorf("%s of app %d: wait for the rate limit: %w", r.action, appID, err)
		}
	}
	err := ErrNoSecret
	for _, secret := range secrets {
		for _, l := range r.limits {
			if err := c.limits.wait(ctx, fmt.Sprintf("%d %s %s", appID, cmp.Or(r.shared, r.action), l.of), l.pause); err != nil {
				return fmt.Errorf("%s of app %d: wait for the rate limit: %w", r.action, appID, err)
			}
		}
		err = c.callWith(ctx, appID, secret, r, data)
		if refused := new(Error); !errors.As(err, &refused) || refused.Code != wrongSignature {
			break
		}
	}
	if refused := new(Error); err == nil || errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("%s of app %d: %w", r.action, appID, err)
}

func (c *Client) callWith(ctx context.Context, appID uint32, secret string, r request, data any) error {
	nonce, timestamp := make([]byte, 8), time.Now().Unix()
	_, _ = rand.Read(nonce) // never fails
	query := url.Values{}
	maps.Copy(query, r.query)
	if slices.Contains(c.Test, appID) {
		query.Set("IsTest", "true")
	}
	query.Set("Action", r.action)
	query.Set("AppId", strconv.FormatUint(uint64(appID), 10))
	query.Set("SignatureNonce", hex.EncodeToString(nonce))
	query.Set("Timestamp", strconv.FormatInt(timestamp, 10))
	query.Set("SignatureVersion", "2.0")
	signature := Sign(appID, query.Get("SignatureNonce"), secret, timestamp)
	query.Set("Signature", signature)
	base := cmp.Or(r.at, c.base)
	u := *base
	u.Path, u.RawQuery = "/"+strings.TrimPrefix(u.Path, "/"), query.Encode()

	method, payload := http.MethodGet, []byte(nil)
	if r.body != nil {
		var err error
		if payload, err = json.Marshal(r.body); err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(payload))
	if err != nil {
		return fmt.Errorf("make the request: %w", errors.Unwrap(err))
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	response, err := c.HTTP.Do(req)
	if at := new(url.Error); errors.As(err, &at) {
		err = at.Err // without the URL, which has the signature
	}
	if err != nil {
		return fmt.Errorf("call %s: %w", base.Host, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("more than %d bytes", maxAnswer)
	}
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	var answer struct {
		Code      *int64
		Message   string
		RequestID json.RawMessage `json:"RequestId"` // a string, or a number beyond 2^53
		Data      json.RawMessage
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Code == nil {
		// Perhaps the answer of a proxy, or a login page.
		return &Error{Action: r.action, AppID: appID, Status: response.StatusCode}
	}
	if *answer.Code != 0 || response.StatusCode/100 != 2 {
		return &Error{
			Action: r.action, AppID: appID, Status: response.StatusCode, Code: *answer.Code,
			Message:   clean(strings.NewReplacer(secret, "…", signature, "…").Replace(answer.Message)),
			RequestID: clean(strings.Trim(string(answer.RequestID), `"`)),
		}
	}
	if err := json.Unmarshal(answer.Data, data); err != nil {
		return fmt.Errorf("read the answer's Data: %w", err)
	}
	return nil
}

// clean returns foreign text in one short line without control characters.
func clean(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))), " ")
	if r := []rune(s); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return s
}

// limits delays calls so that calls of one kind keep a minimum pause.
type limits struct {
	mu   sync.Mutex
	next map[string]time.Time // by kind: when the next call may be made
}

// maxKinds is the number of kinds, mostly rooms, above which idle ones are dropped.
const maxKinds = 10_000

// wait blocks until a call of the kind may be made, and reserves the pause after it. It
// returns at once if ctx ends before that.
func (l *limits) wait(ctx context.Context, kind string, pause time.Duration) error {
	now := time.Now()
	l.mu.Lock()
	if len(l.next) > maxKinds {
		maps.DeleteFunc(l.next, func(_ string, next time.Time) bool { return next.Before(now) })
	}
	turn := l.next[kind]
	if turn.Before(now) {
		turn = now
	}
	end, bounded := ctx.Deadline()
	if err := ctx.Err(); err != nil || (bounded && end.Before(turn)) {
		l.mu.Unlock()
		return cmp.Or(err, context.DeadlineExceeded)
	}
	l.next[kind] = turn.Add(pause)
	l.mu.Unlock()
	select {
	case <-time.After(turn.Sub(now)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
