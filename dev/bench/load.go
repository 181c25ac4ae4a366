//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// load is the result of a closed loop: each connection sends its next callback when the
// last one is answered.
type load struct {
	took      time.Duration
	latencies []time.Duration // sorted
	statuses  map[string]int  // count of answers by status
}

func (l *load) n() int        { return len(l.latencies) }
func (l *load) rate() float64 { return float64(l.n()) / l.took.Seconds() }

// quantile returns the latency that the given share of answers didn't exceed.
func (l *load) quantile(q float64) time.Duration {
	if l.n() == 0 {
		return 0
	}
	return l.latencies[int(float64(l.n()-1)*q)]
}

// closedLoop sends callbacks of new sessions over a number of connections, for a given
// time. It implements HTTP itself, because an http.Client takes as much CPU as the
// handlers that are measured.
func closedLoop(ctx context.Context, address string, connections int, d time.Duration) (*load, error) {
	return closedLoopOf(ctx, address, connections, d, newCallback)
}

// closedLoopOf is closedLoop for other kinds of callbacks.
func closedLoopOf(ctx context.Context, address string, connections int, d time.Duration, next func() ([]byte, error)) (*load, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var (
		mu    sync.Mutex
		all   = load{statuses: map[string]int{}}
		fault error
		wg    sync.WaitGroup
	)
	began := time.Now()
	for range connections {
		wg.Go(func() {
			l, err := oneConnection(ctx, address, 0, next)
			mu.Lock()
			defer mu.Unlock()
			all.latencies = append(all.latencies, l.latencies...)
			for s, n := range l.statuses {
				all.statuses[s] += n
			}
			if err != nil {
				fault = err
			}
		})
	}
	wg.Wait()
	all.took = time.Since(began)
	slices.Sort(all.latencies)
	return &all, fault
}

// oneConnection sends count callbacks one after another, or until ctx ends if count is 0.
func oneConnection(ctx context.Context, address string, callbacks int, next func() ([]byte, error)) (*load, error) {
	l := &load{statuses: map[string]int{}}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return l, err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	var out []byte
	for ctx.Err() == nil && (callbacks == 0 || l.n() < callbacks) {
		body, err := next()
		if err != nil {
			return l, err
		}
		out = appendRequest(out[:0], body)
		began := time.Now()
		if _, err := conn.Write(out); err != nil {
			return l, err
		}
		status, err := answer(in)
		if err != nil {
			return l, err
		}
		l.latencies = append(l.latencies, time.Since(began))
		l.statuses[status]++
	}
	return l, nil
}

// appendRequest appends the request that posts a callback.
func appendRequest(out, body []byte) []byte {
	out = fmt.Appendf(out, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", webhook.Path, len(body))
	return append(out, body...)
}

// newCallback returns a genuine callback of a new session.
func newCallback() ([]byte, error) { return callbackSignedWith(secret) }

func callbackSignedWith(secret string) ([]byte, error) {
	now := time.Now()
	c := zego.RoomClose{
		Common: zego.Common{AppID: 1, Timestamp: now.Unix(), Nonce: strconv.FormatUint(rand.Uint64(), 10)},
		RoomID: "rid_1242649", RoomSessionID: rand.Uint64(), CloseReason: zego.CloseOffline, RoomCloseTime: now,
	}
	c.Signature = zego.Sign(secret, c.Timestamp, c.Nonce)
	return c.MarshalJSON()
}

// answer reads an answer and returns the status in its body. A status code other than 200
// is an error.
func answer(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	length := 0
	for {
		header, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		if header == "\r\n" {
			break
		}
		if name, value, _ := strings.Cut(header, ":"); http.CanonicalHeaderKey(name) == "Content-Length" {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return "", err
			}
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(in, body); err != nil {
		return "", err
	}
	if !strings.Contains(line, " 200 ") {
		return "", fmt.Errorf("answered %s%s", line, body)
	}
	for _, status := range []webhook.Status{webhook.Started, webhook.Duplicate, webhook.Stored, webhook.Queued} {
		if strings.Contains(string(body), `"`+string(status)+`"`) {
			return string(status), nil
		}
	}
	return "200", nil
}
