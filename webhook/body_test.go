package webhook_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// pipes is a listener of in-memory connections, so that synctest can skip time.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// sender is a client's connection. It writes in the background, because the server may not
// read.
type sender struct {
	net.Conn
	answer chan *http.Response // closed without one if the connection ends
}

// inMemory serves the handler and calls do with a function that connects. Call it in a
// synctest bubble.
func inMemory(t *testing.T, h http.Handler, do func(connect func(begin string) *sender)) {
	t.Helper()
	listener := make(pipes)
	server := webhook.NewServerFor(h, webhook.ServerOptions{Log: slog.New(slog.DiscardHandler)}, 1000)
	go func() { _ = server.Serve(listener) }()
	var open []net.Conn
	do(func(begin string) *sender {
		ours, theirs := net.Pipe()
		open = append(open, ours)
		listener <- theirs
		s := &sender{ours, make(chan *http.Response, 1)}
		go func() { _, _ = io.WriteString(ours, begin) }()
		go func() {
			defer close(s.answer)
			resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				s.answer <- resp
			}
		}()
		return s
	})
	for _, c := range open {
		_ = c.Close()
	}
	close(listener)
	_ = server.Close()
	time.Sleep(patience) // so that its goroutines end
}

// is waits for the answer, and checks its status and how long it took.
func (s *sender) is(t *testing.T, what string, status int) {
	t.Helper()
	select {
	case resp := <-s.answer:
		if resp == nil || resp.StatusCode != status {
			t.Errorf("%s: %v, want %d", what, resp, status)
		}
	case <-time.After(patience):
		t.Errorf("%s: no answer, want %d", what, status)
	}
}

// quiet returns a router that neither logs nor observes.
func quiet(t *testing.T) *bundle {
	return newBundle(t, started, func(o *webhook.Options) { o.Observe, o.Log = nil, slog.New(slog.DiscardHandler) })
}

// padded returns a genuine callback of size bytes.
func padded(size int, nonce string) string {
	body := signed("secret", func(c *zego.RoomClose) {
		c.Nonce = nonce
		c.Signature = zego.Sign("secret", c.Timestamp, c.Nonce)
	})
	return body + strings.Repeat(" ", size-len(body))
}

// held returns a request with three quarters of a body of MaxBody bytes.
func held(nonce string) string {
	const there = webhook.MaxBody * 3 / 4
	return request(padded(webhook.MaxBody, nonce))[:there]
}

// Large bodies share memory. A new body evicts the body that has been read for longest.
func TestOldestReadingBodyIsEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inMemory(t, quiet(t), func(connect func(string) *sender) {
			var slow []*sender
			for n := range webhook.BodyMemory / webhook.MaxBody {
				slow = append(slow, connect(held(fmt.Sprint("slow-", n))))
				synctest.Wait()
			}
			connect(request(padded(20<<10, "one"))).is(t, "a newcomer", 200)
			if resp := <-slow[0].answer; resp != nil {
				t.Errorf("the one that was first: %v, want no response", resp)
			}
			connect(request(signed("secret"))).is(t, "a small one", 200)
			connect(request(padded(webhook.MaxBody, "two"))).is(t, "another newcomer", 200)
			select {
			case resp := <-slow[2].answer:
				t.Errorf("the third, for which there was room: %v", resp)
			default:
			}
			_, _ = io.WriteString(slow[2], request(padded(webhook.MaxBody, "slow-2"))[webhook.MaxBody*3/4:])
			slow[2].is(t, "the third", 200)
		})
	})
}

// The event parsed from a large body takes memory too, while a slow receiver has it.
func TestLargeBodiesReserveMemoryUntilAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		slow := newBundle(t, func(ctx context.Context, c *zego.RoomClose) (webhook.Receipt, error) {
			<-release
			return started(ctx, c)
		},
			func(o *webhook.Options) { o.Observe, o.Log = nil, slog.New(slog.DiscardHandler) })
		inMemory(t, slow, func(connect func(string) *sender) {
			var all []*sender
			for n := range webhook.BodyMemory / webhook.MaxBody {
				all = append(all, connect(request(padded(webhook.MaxBody-100, fmt.Sprint("large-", n)))))
				synctest.Wait()
			}
			if resp := <-connect(request(padded(webhook.MaxBody, "one more"))).answer; resp != nil {
				t.Errorf("one more: %v, want no response", resp)
			}
			small := connect(request(signed("secret")))
			synctest.Wait()
			close(release)
			small.is(t, "a small one", 200)
			for n, s := range all {
				s.is(t, fmt.Sprint("large-", n), 200)
			}
			connect(request(padded(webhook.MaxBody, "later"))).is(t, "one later", 200)
		})
	})
}

// Any number of stalled clients with little memory each can't block large callbacks.
func TestStalledBodiesBlockNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inMemory(t, quiet(t), func(connect func(string) *sender) {
			for n := range 900 {
				connect(request(padded(webhook.MaxBody, fmt.Sprint("slow-", n)))[:100<<10])
				synctest.Wait()
				if n%100 == 99 {
					connect(request(padded(100<<10, fmt.Sprint("good-", n)))).is(t, "a good one", 200)
				}
			}
		})
	})
}

func TestTooSlowLargeBodyIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		first, perSecond int
		status           int
	}{
		"stalled":       {webhook.SmallBody + 1<<10, 0, 400},
		"too slow":      {webhook.SmallBody + 1<<10, webhook.MinRate / 2, 400},
		"slow":          {webhook.SmallBody + 1<<10, webhook.MinRate, 200},
		"a small one":   {300, 1 << 10, 200},
		"at the moment": {100 << 10, 0, 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inMemory(t, quiet(t), func(connect func(string) *sender) {
					size := 100 << 10
					if test.first < webhook.SmallBody {
						size = 6 << 10
					}
					all := request(padded(size, "1"))
					s := connect(all[:min(test.first, len(all))])
					synctest.Wait()
					for rest := all[min(test.first, len(all)):]; test.perSecond > 0 && len(rest) > 0; {
						time.Sleep(time.Second)
						n := min(test.perSecond, len(rest))
						if _, err := io.WriteString(s, rest[:n]); err != nil {
							break
						}
						rest = rest[n:]
					}
					if test.first >= size {
						_, _ = io.WriteString(s, all[test.first:])
					}
					s.is(t, name, test.status)
				})
			})
		})
	}
}

// A forged callback with a delayed answer reserves no memory for large bodies.
func TestDelayedGuessesReserveNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inMemory(t, quiet(t), func(connect func(string) *sender) {
			for range 100 { // the first 100 are answered at once
				connect(request(signed("guess"))).is(t, "a guess", 401)
			}
			slow := connect(held("slow"))
			synctest.Wait()
			forged := signed("guess")
			forged += strings.Repeat(" ", webhook.MaxBody-len(forged))
			for range 2 * webhook.BodyMemory / webhook.MaxBody {
				connect(request(forged)) // is answered after a second
				synctest.Wait()
			}
			_, _ = io.WriteString(slow, request(padded(webhook.MaxBody, "slow"))[webhook.MaxBody*3/4:])
			slow.is(t, "beside those that wait", 200)
		})
	})
}

func zipped(t *testing.T, body string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestContentEncodings(t *testing.T) {
	genuine := signed("secret")
	list := `{"app_id":1,"task_id":"YZ4joOE4IwmFAAAT","room_id":"r","event_type":1,"timestamp":"1499676989","nonce":"1","signature":"` + zego.Sign("secret", now.Unix(), "1") + `","detail":{"file_info":[`
	for n := range 2000 {
		list += fmt.Sprintf(`{"begin_timestamp":%d,"duration":%d,"file_id":"YZ4joOE4IwmFAAAT_6677_800221_%d_VA_20211124113602084.mp4","file_size":%d,"file_url":"file_url","media_track_type":3,"output_file_format":"mp4","resolution_height":720,"resolution_width":1280,"status":3,"stream_id":"%d","user_id":"%d","user_name":"play_800221","video_id":""},`,
			1637753762084+n, n*977, n, n*n*7919, n, n)
	}
	list = strings.TrimSuffix(list, ",") + `]}}`
	tests := []struct {
		name, encoding, body string
		status               int
		contains, outcome    string
	}{
		{"none", "", genuine, 200, "started", "room_close:started"},
		{"identity", "identity", genuine, 200, "started", "room_close:started"},
		{"gzip", "gzip", zipped(t, genuine), 200, "started", "room_close:started"},
		{"by its old name", "X-GZIP", zipped(t, genuine), 200, "started", "room_close:started"},
		{"a long list", "gzip", zipped(t, list), 200, "ignored", "recording:ignored"},
		{"forged", "gzip", zipped(t, signed("guess")), 401, "verified", ":bad_signature"},
		{"another", "br", genuine, 415, "gzip", ":encoding"},
		{"two", "gzip, gzip", zipped(t, zipped(t, genuine)), 415, "gzip", ":encoding"},
		{"no gzip", "gzip", genuine, 400, "gzip", ":malformed"},
		{"cut off", "gzip", zipped(t, genuine)[:50], 400, "gzip", ":malformed"},
		{"more than a body may have", "gzip", zipped(t, list+strings.Repeat(list, 2)), 413, "decompressed", ":too_large"},
		{"out of proportion", "gzip", zipped(t, genuine+strings.Repeat(" ", 1<<19)), 413, "decompressed", ":too_large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBundle(t, started)
			r := httptest.NewRequest("POST", webhook.Path, strings.NewReader(tt.body))
			r.Header.Set("Content-Encoding", tt.encoding)
			w := httptest.NewRecorder()
			b.ServeHTTP(w, r)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.contains) || strings.Join(b.outcomes, ",") != tt.outcome {
				t.Errorf("%d %s, observed %v", w.Code, w.Body, b.outcomes)
			}
			if (w.Code == 415) != (w.Header().Get("Accept-Encoding") == "gzip") {
				t.Errorf("Accept-Encoding: %q", w.Header().Get("Accept-Encoding"))
			}
		})
	}
}
