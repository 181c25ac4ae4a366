// Package load plays ZEGO under load: it signs room_close callbacks and delivers them at a
// rate of its own, tries again as ZEGO does, and counts what came of it.
//
// Two things make it hard on a webhook. Deliveries come when they are due and
// not when the webhook is ready for them, so that one which stalls is measured
// by all that it kept waiting. And it does what ZEGO doesn't rule out: callbacks
// come twice, out of order, in bursts, and with a signature that is wrong.
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
	// parallelClosed is how many attempts are under way at once where nothing else
	// sets the pace, and parallelOpen where the rate does: as many as are open when
	// a webhook hangs for a tenth of a second at 5,000 callbacks a second.
	parallelClosed = 16
	parallelOpen   = 512
	// maxParallel is how many ports a machine has for one address.
	maxParallel = 65535
	// maxRate is the most callbacks per second that the clock can tell apart.
	maxRate = 1e6
	// maxParticipants bounds what is made up for one session.
	maxParticipants = 100_000
	// lineCount is for how many sessions each attempt gets a line.
	lineCount = 20
)

// Options say what is sent, where, and how hard. Only URL, RoomID, Count and
// Timeout can't be left out.
type Options struct {
	// URL is where the callbacks are posted to. Its path may hold a secret, and is
	// never shown whole.
	URL string
	// AppID and Secret are the app's.
	AppID  uint32
	Secret string
	// RoomID is the rooms' name, with "-1", "-2" and so on behind it where there are
	// several.
	RoomID string
	// Rooms is over how many rooms the sessions are spread, in turn; 0 is 1.
	Rooms int
	// RoomSessionID is that of the first session. Each further one has the next; 1
	// follows the largest.
	RoomSessionID uint64
	// CloseReason is that of all sessions.
	CloseReason zego.Code
	// RoomCloseTime is that of all sessions; if it is zero, each was closed when
	// its first callback is sent.
	RoomCloseTime time.Time

	// Count is how many sessions there are.
	Count int
	// Rate is how many sessions per second are offered. The i-th is due i/Rate after
	// the start, whatever became of those before it: an open loop. Where neither Rate
	// nor Burst is set, the next one is due when a connection is free: a closed loop,
	// as fast as Parallel allows.
	Rate float64
	// Burst, of the Count sessions, are offered at one instant, at the start and then
	// every BurstEvery, on top of Rate.
	Burst      int
	BurstEvery time.Duration
	// Spread delays each delivery by a random time up to it, so that they arrive in
	// another order. In a closed loop all sessions are then offered at once.
	Spread time.Duration
	// Duplicates is the share of sessions, from 0 to 1, that are also delivered as a copy:
	// once, up to Spread after the original is due, and whatever the answer. It has
	// no further attempts, as those are ZEGO's for the callback and not for its copy.
	Duplicates float64
	// BadSignatures is for what share of sessions, from 0 to 1, another callback with
	// a wrong signature is delivered, once. Its room_session_id is that of the
	// session with the highest bit flipped, so it is no session's.
	BadSignatures float64
	// Resign is for what share of sessions, from 0 to 1, each further delivery has a
	// timestamp, nonce and signature of its own. The others repeat the first one's.
	// Nobody knows which of the two ZEGO does.
	Resign float64
	// Participants is how many users each session has; 0 leaves out all but its
	// room_close. What they did is made up, and told by room_create, room_login and
	// room_logout, each at a random time up to Spread after the session is offered:
	// so it comes in any order, and before or after the room_close. Duplicates is
	// their share, too. In order of time they come where there is no Spread.
	Participants int
	// Missing is the share of those callbacks, from 0 to 1, that are never sent.
	Missing float64
	// Seed decides all that is random but the nonces: the same options with the same
	// seed give the same sessions, copies, delays and choices. Nonces are new each
	// time, because a signature that comes back with another body is refused.
	Seed uint64

	// Parallel is how many attempts are under way at once, and so how many connections
	// there are. What is due beyond that waits, and its latency counts. 0 is 512 in an
	// open loop and 16 in a closed one.
	Parallel int
	// Timeout is how long an answer is waited for, from when an attempt begins.
	Timeout time.Duration
	// Ladder is after how long each further attempt comes; [send.Ladder] if it is nil.
	Ladder []time.Duration
	// Once leaves out the further attempts.
	Once bool
	// Transport carries the requests; one with enough connections if it is nil.
	Transport http.RoundTripper

	// Verbose writes a line about each attempt even where there are more than 20
	// sessions.
	Verbose bool
	// Progress, if set, reports how far a run is that logs no line for each attempt:
	// by a bar if it is a terminal, and otherwise by a line every 10 seconds.
	Progress io.Writer
	// Journal, if set, is called with each session once it is decided, by
	// one goroutine, one entry after another, and all calls are over when Run returns.
	Journal func(audit.Entry)
}

// Validate says what is wrong with the options, naming the flags of load that set them.
func (o *Options) Validate() error {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		// Without the address, which may hold a secret.
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
	case !(o.Rate >= 0 && o.Rate <= maxRate): // so that NaN is none either
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

// open reports whether sessions come by the clock, and not when there is room.
func (o *Options) open() bool { return o.Rate > 0 || o.Burst > 0 }

// eachAttempt reports whether each attempt gets a line.
func (o *Options) eachAttempt() bool { return o.Verbose || o.Count <= lineCount }

// defaults fills in what was left out.
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

// Run sends the callbacks, writes a line about each attempt to out if there are
// few, and ends when each session is decided: acknowledged, or lost. When ctx
// ends it stops at once and returns ctx's cause, with a report on what was done
// by then.
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

// shownURL is the address without what may be secret in it: user, query, and
// what follows the webhook's path. Of another path nothing is known, so none of
// it is shown.
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
