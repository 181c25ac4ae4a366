// Package send plays ZEGO: it signs room_close callbacks and posts them, and
// tries again as ZEGO does.
package send

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/zego"
)

// Ladder is after how long ZEGO tries again, each counted from the attempt
// before. After the last it forgets the callback.
var Ladder = [...]time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second}

// Options say what is sent, and where.
type Options struct {
	// URL is where the callbacks are posted to.
	URL string
	// AppID and Secret are the app's.
	AppID  uint32
	Secret string
	// RoomID, RoomSessionID, CloseReason and RoomCloseTime are those of the first
	// callback. Each further one is of the next session.
	RoomID        string
	RoomSessionID uint64
	CloseReason   zego.CloseReason
	RoomCloseTime time.Time
	// Count is how many callbacks are sent.
	Count int
	// Parallel is how many are under way at once.
	Parallel int
	// Timeout is how long an answer is waited for.
	Timeout time.Duration
	// Once leaves out the further attempts.
	Once bool
	// Transport carries the requests; one with enough connections if it is nil.
	Transport http.RoundTripper
}

// Report is what came of it.
type Report struct {
	// Acknowledged is how many callbacks got a 2XX.
	Acknowledged int64
	// Lost is how many got none, so that ZEGO would have forgotten them.
	Lost int64
}

// Run sends the callbacks, writes a line about each attempt to out, and ends
// when each was acknowledged or is lost, or with ctx.
func Run(ctx context.Context, o Options, out io.Writer) (Report, error) {
	var acknowledged, lost atomic.Int64
	lines := make(chan string, 100)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for line := range lines {
			fmt.Fprintln(out, line)
		}
	}()
	client := &http.Client{Timeout: o.Timeout, Transport: cmp.Or[http.RoundTripper](o.Transport, &http.Transport{MaxIdleConnsPerHost: o.Parallel})}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(o.Parallel)
	for i := range o.Count {
		group.Go(func() error {
			c := zego.RoomClose{
				Common:        zego.Common{AppID: o.AppID, Timestamp: time.Now().Unix(), Nonce: strconv.FormatUint(rand.Uint64()>>1, 10)},
				RoomID:        o.RoomID,
				RoomSessionID: o.RoomSessionID + uint64(i),
				CloseReason:   o.CloseReason,
				RoomCloseTime: o.RoomCloseTime,
			}
			ok, err := deliver(groupCtx, client, o, c, lines)
			if ok {
				acknowledged.Add(1)
			} else {
				lost.Add(1)
			}
			return err
		})
	}
	err := group.Wait()
	close(lines)
	<-written
	return Report{acknowledged.Load(), lost.Load()}, err
}

// deliver posts one callback until it is acknowledged or ZEGO would forget it.
func deliver(ctx context.Context, client *http.Client, o Options, c zego.RoomClose, lines chan<- string) (bool, error) {
	c.Signature = zego.Sign(o.Secret, c.Timestamp, c.Nonce)
	body, err := json.Marshal(c)
	if err != nil {
		return false, err
	}
	for attempt := 0; ; attempt++ {
		ok, answer := post(ctx, client, o.URL, body)
		line := fmt.Sprintf("room_session_id %d, attempt %d: %s", c.RoomSessionID, attempt+1, answer)
		last := ok || o.Once || attempt == len(Ladder)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case !last:
			line += fmt.Sprintf("; again in %v", Ladder[attempt])
		case !ok && !o.Once:
			line += "; ZEGO would now forget it"
		}
		lines <- line
		if last {
			return ok, nil
		}
		select {
		case <-time.After(Ladder[attempt]):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// post makes one attempt, and tells what came back.
func post(ctx context.Context, client *http.Client, url string, body []byte) (ok bool, answer string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return false, err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return false, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return false, err.Error()
	}
	return resp.StatusCode/100 == 2, resp.Status + " " + strings.TrimSpace(string(text))
}
