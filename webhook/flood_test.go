package webhook_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// patience bounds each wait of a test.
const patience = time.Minute

// A flood of forged callbacks is answered with few log lines, and doesn't affect genuine
// callbacks from the same address.
func TestForgedCallbacksDoNotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t, started)
		from := func(remote, body string) int {
			r := httptest.NewRequest("POST", webhook.Path, strings.NewReader(body))
			r.RemoteAddr = remote
			r.Header.Set("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", len(b.outcomes)%256)) // anybody can set this header
			w := httptest.NewRecorder()
			b.ServeHTTP(w, r)
			return w.Code
		}
		steps := []struct {
			name, remote, body    string
			times, status, logged int
			last                  string // in the log's last line
		}{
			{"the first are logged", "192.0.2.1:1", signed("guess"), 30, 401, 30, `"outcome":"bad_signature","unlogged":0`},
			{"the others aren't, but are answered", "192.0.2.1:2", signed("guess"), 70, 401, 0, ""},
			{"another reason is", "192.0.2.1:3", "{}", 1, 400, 1, `"outcome":"malformed"`},
			{"a good one is taken", "192.0.2.1:4", signed("secret"), 1, 200, 1, `"outcome":"started"`},
			{"another address", "192.0.2.2:1", signed("guess"), 31, 401, 30, `"remote":"192.0.2.2:1"`},
			{"an IPv4 address in IPv6", "[::ffff:192.0.2.2]:1", signed("guess"), 1, 401, 0, ""},
			{"an IPv6 network", "[2001:db8::1]:1", signed("guess"), 31, 401, 30, `"remote":"[2001:db8::1]:1"`},
			{"another address of it", "[2001:db8::ffff:ffff]:1", signed("guess"), 1, 401, 0, ""},
			{"another network", "[2001:db8:0:1::1]:1", signed("guess"), 1, 401, 1, `"remote":"[2001:db8:0:1::1]:1"`},
		}
		for _, s := range steps {
			b.log.Reset()
			for range s.times {
				if got := from(s.remote, s.body); got != s.status {
					t.Fatalf("%s: %d, want %d", s.name, got, s.status)
				}
			}
			lines := strings.Split(strings.TrimSpace(b.log.String()), "\n")
			if n := strings.Count(b.log.String(), "\n"); n != s.logged || !strings.Contains(lines[len(lines)-1], s.last) {
				t.Errorf("%s: %d lines, want %d, the last with %s:\n%s", s.name, n, s.logged, s.last, b.log.String())
			}
		}

		time.Sleep(time.Minute)
		b.log.Reset()
		from("192.0.2.1:5", signed("guess"))
		from("192.0.2.1:6", signed("guess"))
		if first, second, _ := strings.Cut(b.log.String(), "\n"); !strings.Contains(first, `"unlogged":70`) || !strings.Contains(second, `"unlogged":0`) {
			t.Errorf("after a minute: %s", b.log.String())
		}

		time.Sleep(time.Minute)
		b.log.Reset()
		for n := range 10_000 {
			from(fmt.Sprintf("10.0.%d.%d:1", n/256, n%256), signed("guess"))
		}
		if n := strings.Count(b.log.String(), "\n"); n != 300 {
			t.Errorf("from many addresses: %d lines", n)
		}
		if n := len(b.outcomes); n != 30+70+1+1+31+1+31+1+1+2+10_000 {
			t.Errorf("%d were counted", n)
		}
	})
}

// A client that waits for the answers to its guesses gets one a second. Nobody else waits,
// not even a genuine callback from the same address.
func TestExcessGuessesAreDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t, started)
		took := map[time.Duration]bool{}
		from := func(remote, body string) (int, time.Duration) {
			r := httptest.NewRequest("POST", webhook.Path, strings.NewReader(body))
			r.RemoteAddr = remote
			w, began := httptest.NewRecorder(), time.Now()
			b.ServeHTTP(w, r)
			if w.Code == 429 && w.Header().Get("Retry-After") == "" {
				t.Error("a 429 doesn't say when to try again")
			}
			took[time.Since(began)] = true
			return w.Code, time.Since(began)
		}
		is := func(what, remote, body string, status int, late bool) {
			t.Helper()
			if got, took := from(remote, body); got != status || late != (took >= time.Second && took < 2*time.Second) || !late && took != 0 {
				t.Errorf("%s: %d after %v", what, got, took)
			}
		}
		for range 100 {
			is("one of the first guesses", "192.0.2.1:1", signed("guess"), 401, false)
		}
		is("one guess more", "192.0.2.1:2", signed("guess"), 429, true)
		is("a good callback", "192.0.2.1:3", signed("secret"), 200, false)
		is("a malformed body", "192.0.2.1:3", "{}", 400, false)
		is("another address", "192.0.2.2:1", signed("guess"), 401, false)
		time.Sleep(10 * time.Second)
		for range 10 {
			is("a guess later", "192.0.2.1:1", signed("guess"), 401, false)
		}
		for range 90 { // use up the limit
			from("192.0.2.1:1", signed("guess"))
		}
		// A large body costs more than a guess, whatever is wrong with it.
		long := strings.Repeat(" ", 9000)
		for range 100 {
			is("a large body", "192.0.2.3:1", long+"{", 400, false)
		}
		is("one that is too large", "192.0.2.3:1", strings.Repeat(long, 200), 413, true)
		if len(took) < 3 { // no delay, and two different ones
			t.Errorf("late answers took %v, want each another time", took)
		}
		// A client that hangs up early ends the delay.
		ctx, leave := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer leave()
		for range 20 {
			r := httptest.NewRequest("POST", webhook.Path, strings.NewReader(signed("guess"))).WithContext(ctx)
			r.RemoteAddr = "192.0.2.1:1"
			b.ServeHTTP(httptest.NewRecorder(), r)
		}
		if n := strings.Count(strings.Join(b.outcomes, " "), ":bad_signature"); n != 100+1+1+10+90+20 {
			t.Errorf("%d were counted", n)
		}
	})
}

// Text from a callback makes neither a second log line nor another field in the first.
func TestForeignTextForgesNoLogLine(t *testing.T) {
	for name, body := range map[string]string{
		"a room's name":       signed("secret", func(c *zego.RoomClose) { c.RoomID = "a\" outcome=duplicate\u2028level=ERROR msg=\"b" }),
		"a line in the name":  strings.Replace(signed("secret"), "rid_", `a\nlevel=ERROR outcome=duplicate `, 1),
		"an event":            strings.Replace(signed("guess"), `"room_close"`, `"x outcome=duplicate\u2028"`, 1),
		"a field given twice": `{"a\nlevel=ERROR outcome=duplicate":1,"a\nlevel=ERROR outcome=duplicate":1}`,
		"a number":            strings.Replace(signed("secret"), `"appid":1`, `"appid":"\n outcome=duplicate\n"`, 1),
	} {
		var log strings.Builder
		b := newBundle(t, started, func(o *webhook.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		b.post(body)
		fields := regexp.MustCompile(`"(\\.|[^"\\])*"`).ReplaceAllString(log.String(), "quoted")
		if strings.Count(log.String(), "\n") != 1 || strings.Contains(log.String(), "\u2028") || strings.Contains(fields, "outcome=duplicate") {
			t.Errorf("%s: %s", name, log.String())
		}
	}
}

// serve serves on a free port until the test ends.
func serve(t *testing.T, server *http.Server) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

func connect(t *testing.T, address, begin string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, begin); err != nil {
		t.Fatal(err)
	}
	return c
}

func request(body string) string {
	return "POST " + webhook.Path + " HTTP/1.1\r\nHost: h\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// answer reads an answer's status code.
func answer(t *testing.T, c net.Conn) int {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// ended waits until the server has ended the connection.
func ended(t *testing.T, what string, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%s: not ended: %v", what, err)
	}
}

// If there are too many connections, the one that has been idle or unverified for longest
// is closed, and never one with a genuine callback in progress.
func TestOldestUnverifiedConnectionIsClosed(t *testing.T) {
	const most = 3
	taking, take := make(chan struct{}), make(chan struct{})
	b := newBundle(t, func(context.Context, *zego.RoomClose) (webhook.Receipt, error) {
		taking <- struct{}{}
		<-take
		return webhook.Receipt{Status: webhook.Started}, nil
	}, func(o *webhook.Options) { o.AnswerWithin = patience })
	address := serve(t, webhook.NewServerFor(b, webhook.ServerOptions{Log: slog.New(slog.DiscardHandler)}, most))
	stranger := func() net.Conn { return connect(t, address, "POST ") }

	genuine := connect(t, address, request(signed("secret")))
	<-taking
	var strangers []net.Conn
	for range 2 * most {
		strangers = append(strangers, stranger())
	}
	for n, c := range strangers[:most] {
		ended(t, fmt.Sprint("stranger ", n), c)
	}
	take <- struct{}{}
	if code := answer(t, genuine); code != 200 {
		t.Errorf("with strangers around: %d", code)
	}
	// The genuine connection now counts as idle and exceeds the limit, so the oldest stranger is
	// closed.
	ended(t, "the next stranger", strangers[most])
	stranger()
	ended(t, "the one after", strangers[most+1])
	if _, err := io.WriteString(genuine, request(signed("secret"))); err != nil {
		t.Fatal(err)
	}
	<-taking
	take <- struct{}{}
	if code := answer(t, genuine); code != 200 {
		t.Errorf("once more: %d", code)
	}

	stranger()
	ended(t, "the last of the first, as the genuine one is idle again", strangers[most+2])

	forger := connect(t, address, request(signed("guess")))
	if code := answer(t, forger); code != 401 {
		t.Errorf("forged: %d", code)
	}
	for range most {
		stranger()
	}
	ended(t, "the genuine one, which has been idle since", genuine)
	ended(t, "the forger", forger)
}

// Thousands of slow clients and a flood of forged callbacks block no genuine callback, and
// the slow clients are disconnected.
func TestSlowClientsBlockNoOther(t *testing.T) {
	const good, each = 8, 50
	slow := min(2000, webhook.OpenFiles()/4) // half of the open files are for both ends of these connections
	var taken atomic.Int64
	ring, err := zego.NewKeyring(map[uint32][]string{1: {"secret"}}, 0, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	router := webhook.Router(webhook.Options{Keyring: ring, Log: slog.New(slog.DiscardHandler), Receiver: intake(func(context.Context, *zego.RoomClose) (webhook.Receipt, error) {
		taken.Add(1)
		return webhook.Receipt{Status: webhook.Started}, nil
	})})
	server := webhook.NewServer(router, webhook.ServerOptions{Log: slog.New(slog.DiscardHandler)})
	server.ReadTimeout = server.ReadHeaderTimeout // to end sooner
	address := serve(t, server)

	over := make(chan struct{})
	var around, cut atomic.Int64
	var others sync.WaitGroup
	for n := range slow {
		others.Go(func() {
			genuine := request(signed("secret"))
			quick := 20 // first bytes to send: a part of the header
			if n%2 == 0 {
				quick = len(genuine) - 100 // a part of the body
			}
			for first := true; ; first = false {
				select {
				case <-over:
					return
				default:
				}
				if dribble(address, genuine, quick, func() {
					if first {
						around.Add(1)
					}
				}) {
					cut.Add(1)
				}
			}
		})
	}
	for deadline := time.Now().Add(patience); around.Load() < int64(slow); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d of %d slow clients could connect", around.Load(), slow)
		}
	}
	post := func(client *http.Client, body string) int {
		resp, err := client.Post("http://"+address+webhook.Path, "application/json", strings.NewReader(body))
		// On a busy machine a connection can be closed before its request was read. ZEGO
		// retries then, and so does this sender.
		for n := 0; err != nil && n < 5; n++ {
			resp, err = client.Post("http://"+address+webhook.Path, "application/json", strings.NewReader(body))
		}
		if err != nil {
			t.Error(err)
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for range 50 { // forgers that wait for their answers
		others.Go(func() {
			for client := new(http.Client); ; {
				select {
				case <-over:
					return
				default:
				}
				if code := post(client, signed("guess")); code != 401 && code != 429 {
					t.Errorf("forged: %d", code)
				}
			}
		})
	}

	var all sync.WaitGroup
	for g := range good {
		all.Go(func() {
			// Half of them connect anew for each callback.
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: g%2 == 0}}
			defer client.CloseIdleConnections()
			for n := range each {
				body := signed("secret", func(c *zego.RoomClose) {
					c.Nonce = fmt.Sprint(g, "-", n)
					c.Signature = zego.Sign("secret", c.Timestamp, c.Nonce)
				})
				if code := post(client, body); code != 200 {
					t.Errorf("a good one: %d", code)
				}
			}
		})
	}
	all.Wait()
	close(over)
	others.Wait() // all slow clients are disconnected then
	if taken.Load() != good*each {
		t.Errorf("taken %d, want %d", taken.Load(), good*each)
	}
	if cut.Load() < int64(slow) {
		t.Errorf("of %d slow clients %d were cut off", slow, cut.Load())
	}
}

// dribble sends the first quick bytes of a request at once, and then a byte at a time,
// until the server closes the connection.
func dribble(address, request string, quick int, begun func()) (cut bool) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	if _, err := io.WriteString(c, request[:quick]); err != nil {
		return true
	}
	begun()
	for i := quick; i < len(request)-1; {
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, err := io.CopyN(io.Discard, c, 1)
		switch {
		case err == nil:
			continue // the answer to half a request
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return true
		}
		if _, err := io.WriteString(c, request[i:i+1]); err != nil {
			return true
		}
		i++
	}
	return false
}
