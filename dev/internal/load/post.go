package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/closeouthq/closeout/webhook"
)

// poster makes attempts in parallel.
type poster struct {
	client  *http.Client
	request *http.Request // the common parts of all requests
	words   bool          // whether the text of results is needed
	hidden  *strings.Replacer
	close   func()
}

// result is the result of an attempt.
type result struct {
	delivery     *delivery
	began, ended time.Duration
	// code is the HTTP status code, or 0 without an answer.
	code int
	// kind names the result for counting: the status in the body of a 2xx, another status
	// code, or the kind of error.
	kind string
	// text is the answer or the error in one line.
	text string
}

// ok reports whether ZEGO would consider the callback delivered. The body doesn't matter.
func (a *result) ok() bool { return a.code/100 == 2 }

func newPoster(o *Options) (*poster, error) {
	request, err := http.NewRequest(http.MethodPost, o.URL, nil)
	if err != nil {
		return nil, errors.New("--url: no request can be made to it")
	}
	request.Header.Set("Content-Type", "application/json")
	p := &poster{request: request, words: o.eachAttempt(), hidden: hide(request.URL), close: func() {}}
	transport := o.Transport
	if transport == nil {
		own := &http.Transport{
			// Otherwise a connection that is never made would keep its slot long after
			// its attempt has timed out.
			DialContext:         (&net.Dialer{Timeout: o.Timeout}).DialContext,
			TLSHandshakeTimeout: o.Timeout,
			MaxConnsPerHost:     o.Parallel,
			MaxIdleConnsPerHost: o.Parallel,
			// Close idle connections before the webhook does. A connection that the
			// webhook closes while it is reused looks like a callback without an answer.
			IdleConnTimeout:    30 * time.Second,
			DisableCompression: true,
		}
		transport, p.close = own, own.CloseIdleConnections
	}
	p.client = &http.Client{
		Timeout: o.Timeout, Transport: transport,
		// A redirect isn't a 2xx, and ZEGO isn't documented to follow one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p, nil
}

// hide removes the secret parts of the address from a text, because an answer may quote
// the requested path.
func hide(u *url.URL) *strings.Replacer {
	var pairs []string
	for _, path := range []string{u.Path, u.EscapedPath()} {
		if _, secret, _ := strings.Cut(path, webhook.Path+"/"); secret != "" {
			pairs = append(pairs, secret, "...")
		}
	}
	return strings.NewReplacer(pairs...)
}

// attempt posts a body and waits for the answer.
func (p *poster) attempt(ctx context.Context, body []byte) result {
	request := p.request.WithContext(ctx)
	request.ContentLength = int64(len(body))
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	request.Body, _ = request.GetBody()
	response, err := p.client.Do(request)
	if err != nil {
		return p.failed(err)
	}
	defer response.Body.Close()
	// Read the body to its end, so that the connection can be reused. Ignore errors,
	// because ZEGO only looks at the status code.
	text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	result := result{code: response.StatusCode, kind: strconv.Itoa(response.StatusCode)}
	if result.ok() {
		result.kind = status(text)
	}
	if p.words {
		result.text = p.line(response.Status + " " + string(text))
	}
	return result
}

// statusForm is the form of a status. The body is foreign text, and its status is
// printed.
var statusForm = regexp.MustCompile(`^[a-z_]{1,40}$`)

// status returns the status in the body of an answer.
func status(body []byte) string {
	var answer struct{ Status string }
	if err := json.Unmarshal(body, &answer); err != nil || !statusForm.MatchString(answer.Status) {
		return "unknown"
	}
	return answer.Status
}

func (p *poster) failed(err error) result {
	// The error would quote the address.
	if quoting := new(url.Error); errors.As(err, &quoting) {
		err = quoting.Err
	}
	r := result{kind: failure(err)}
	switch {
	case !p.words:
	case r.kind == timedOut:
		r.text = fmt.Sprintf("no answer within %v", p.client.Timeout)
	default:
		r.text = p.line(err.Error())
	}
	return r
}

// line converts foreign text to one line.
func (p *poster) line(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(text))
	return p.hidden.Replace(text)
}

const timedOut = "timeout"

// failure names the kind of an error.
func failure(err error) string {
	var (
		timeout interface{ Timeout() bool }
		name    *net.DNSError
		record  tls.RecordHeaderError
		cert    *tls.CertificateVerificationError
		alert   tls.AlertError
	)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "out of file descriptors"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "out of local ports"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.As(err, &timeout) && timeout.Timeout():
		return timedOut
	case errors.As(err, &name):
		return "name not found"
	case errors.As(err, &record), errors.As(err, &cert), errors.As(err, &alert):
		return "TLS"
	}
	return "other"
}
