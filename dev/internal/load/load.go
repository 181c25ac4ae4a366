// Package load plays ZEGO under load. It signs room_close callbacks, delivers them at a
// given rate, retries as ZEGO does, and counts the outcomes.
//
// Two things stress a webhook. Deliveries come when they are due and not when the webhook
// is ready, so that a stall shows in the latency of all callbacks that waited. And
// callbacks come twice, out of order, in bursts, and with wrong signatures, because ZEGO
// doesn't exclude that.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/send"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

const (
	// parallelClosed is the default number of parallel attempts in a closed loop, and
	// parallelOpen in an open loop: enough for a webhook that hangs for a tenth of a
	// second at 5,000 callbacks a second.
	parallelClosed = 16
	parallelOpen   = 512
	// maxParallel is the number of ports that a machine has for one address.
	maxParallel = 65535
	// maxRate is the highest rate that the clock can resolve, in callbacks a second.
	maxRate = 1e6
	// maxParticipants bounds the participants of one session.
	maxParticipants = 100_000
	// lineCount is the number of sessions up to which each attempt gets a line.
	lineCount = 20
)

// Options configure a run. Only URL, RoomID, Count and Timeout are required.
type Options struct {
	// URL is the address to post to. Its path may hold a secret, and is never shown
	// completely.
	URL string
	// AppID and Secret identify the app.
	AppID  uint32
	Secret string
	// RoomID is the room's name. If there are several rooms, "-1", "-2" and so on are
	// appended.
	RoomID string
	// Rooms is the number of rooms, which the sessions use in turn. Default: 1.
	Rooms int
	// RoomSessionID is the number of the first session. The next sessions count up from
	// it, and 1 follows the largest number.
	RoomSessionID uint64
	// CloseReason is the close_reason of all sessions.
	CloseReason zego.Code
	// RoomCloseTime is the close time of all sessions. Default: when the session's first
	// callback is sent.
	RoomCloseTime time.Time

	// Count is the number of sessions.
	Count int
	// Rate is the number of sessions offered a second. The i-th session is due i/Rate
	// after the start, whatever happened to the earlier ones: an open loop. If neither
	// Rate nor Burst is set, a session is due whenever a connection is free: a closed
	// loop, as fast as Parallel allows.
	Rate float64
	// Burst is the number of sessions, out of Count, offered at one instant, at the start
	// and then every BurstEvery, in addition to Rate.
	Burst      int
	BurstEvery time.Duration
	// Spread bounds the random delay of each delivery, which changes their order. In a
	// closed loop all sessions are then offered at once.
	Spread time.Duration
	// Duplicates is the share of sessions, from 0 to 1, with a second delivery: a copy, sent
	// once, up to Spread after the original is due, whatever the answer. A copy has no
	// retries, because ZEGO retries a callback and not its copy.
	Duplicates float64
	// BadSignatures is the share of sessions, from 0 to 1, for which one more callback
	// with a wrong signature is delivered, once. Its room_session_id is the session's
	// with the highest bit flipped, so it belongs to no session.
	BadSignatures float64
	// Resign is the share of sessions, from 0 to 1, for which each further delivery has a
	// new timestamp, nonce and signature. In the others it repeats those of the first
	// delivery. It isn't known which of the two ZEGO does.
	Resign float64
	// Participants is the number of users in each session. With 0 only room_close
	// callbacks are sent. The users' stays are made up, and reported by room_create,
	// room_login and room_logout, each at a random time up to Spread after the session is
	// offered, so in any order, and before or after the room_close. Without Spread they
	// come in order of time. Duplicates applies to them too.
	Participants int
	// Missing is the share of those callbacks, from 0 to 1, that are never sent.
	Missing float64
	// Seed determines all random choices except nonces: the same options with the same
	// seed produce the same sessions, copies, delays and choices. Nonces are new each
	// time, because a signature is refused with another body.
	Seed uint64

	// Parallel is the number of parallel attempts, and so of connections. Deliveries
	// beyond it wait, and their latency includes that. Default: 512 in an open loop and
	// 16 in a closed one.
	Parallel int
	// Timeout bounds an attempt.
	Timeout time.Duration
	// Ladder holds the pauses before retries. Default: [send.Ladder].
	Ladder []time.Duration
	// Once leaves out retries.
	Once bool
	// Transport sends the requests. Default: a transport with enough connections.
	Transport http.RoundTripper

	// Verbose writes a line about each attempt even for more than 20 sessions.
	Verbose bool
	// Progress, if set, gets the progress of a run without a line for each attempt: as a
	// bar on a terminal, else as a line every 10 seconds.
	Progress io.Writer
	// Journal, if set, is called with each session when its outcome is known. The calls
	// come one after the other from one goroutine, and all before Run returns.
	Journal func(audit.Entry)
}

// Validate returns an error about invalid options, with the names of the command's flags.
func (o *Options) Validate() error {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		// Don't show the address, which may hold a secret.
		if bad := new(url.Error); errors.As(err, &bad) {
			err = bad.Err
		}
		return fmt.Errorf("--url: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("--url: want an address like http://localhost:8080" + webhook.Path)
	case o.RoomID == "":
		return errors.New("--room: found an empty name, want at least a character")
	case o.Count < 1:
		return fmt.Errorf("--count: found %d, want at least 1", o.Count)
	case o.Participants < 0 || o.Participants > maxParticipants:
		return fmt.Errorf("--participants: found %d, want 0 (none) to %d", o.Participants, maxParticipants)
	case o.Missing > 0 && o.Participants == 0:
		return fmt.Errorf("--missing: found %v without --participants, want both or neither", o.Missing)
	case o.Rooms < 0:
		return fmt.Errorf("--rooms: found %d, want at least 1", o.Rooms)
	case o.Parallel < 0 || o.Parallel > maxParallel:
		return fmt.Errorf("--parallel: found %d, want 1 to %d", o.Parallel, maxParallel)
	case !(o.Rate >= 0 && o.Rate <= maxRate): // refuses NaN too
		return fmt.Errorf("--rate: found %v, want 0 (no rate) to %d per second", o.Rate, int(maxRate))
	case o.Burst < 0:
		return fmt.Errorf("--burst: found %d, want 0 (none) or more", o.Burst)
	case o.BurstEvery < 0:
		return fmt.Errorf("--burst-every: found %v, want more than 0s", o.BurstEvery)
	case o.Burst > 0 && o.BurstEvery == 0:
		return fmt.Errorf("--burst: found %d without --burst-every, want both or neither", o.Burst)
	case o.Burst == 0 && o.BurstEvery > 0:
		return fmt.Errorf("--burst-every: found %v without --burst, want both or neither", o.BurstEvery)
	case o.Spread < 0:
		return fmt.Errorf("--spread: found %v, want 0s (none) or more", o.Spread)
	case o.Timeout <= 0:
		return fmt.Errorf("--timeout: found %v, want more than 0s", o.Timeout)
	}
	for _, share := range []struct {
		flag  string
		value float64
	}{{"duplicates", o.Duplicates}, {"bad-signatures", o.BadSignatures}, {"resign", o.Resign}, {"missing", o.Missing}} {
		if !(share.value >= 0 && share.value <= 1) {
			return fmt.Errorf("--%s: found %v, want 0 to 1", share.flag, share.value)
		}
	}
	return nil
}

// open reports whether the run is an open loop.
func (o *Options) open() bool { return o.Rate > 0 || o.Burst > 0 }

// eachAttempt reports whether each attempt gets a line.
func (o *Options) eachAttempt() bool { return o.Verbose || o.Count <= lineCount }

// defaults sets the defaults of unset options.
func (o *Options) defaults() {
	o.Rooms = cmp.Or(o.Rooms, 1)
	if o.Parallel == 0 {
		o.Parallel = parallelClosed
		if o.open() {
			o.Parallel = parallelOpen
		}
	}
	if o.Ladder == nil {
		o.Ladder = send.Ladder[:]
	}
	if o.Once {
		o.Ladder = nil
	}
}

// Run sends the callbacks. It writes a line about each attempt to out if there are few,
// and returns when each session is acknowledged or lost. When ctx ends it stops at once,
// and returns ctx's cause with a report of the results so far.
func Run(ctx context.Context, o Options, out io.Writer) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.defaults()
	r, err := newRunner(o)
	if err != nil {
		return nil, err
	}
	stop := r.background(out)
	err = r.run(ctx)
	report := r.finalReport()
	stop()
	return report, err
}

// shownURL returns the address without its possibly secret parts: user, query, and the
// path after the webhook's. It hides any other path completely.
func shownURL(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host}
	before, after, found := strings.Cut(u.Path, webhook.Path)
	switch {
	case found && after == "":
		shown.Path = before + webhook.Path
	case found:
		return shown.String() + (&url.URL{Path: before + webhook.Path}).EscapedPath() + "/..."
	case strings.Trim(u.Path, "/") != "":
		return shown.String() + "/..."
	}
	return shown.String()
}
