package webhook

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/ratelimiter"

	"github.com/closeouthq/closeout/internal/recent"
)

// limiter decides which refusals are logged, and which are answered late. Nothing is
// refused for its source: behind a proxy all callbacks have one address, and what a
// proxy says of another can be forged.
type limiter struct {
	lines  limit
	tally  *recent.Map[source, *tally]
	failed *recent.Map[netip.Prefix, limit]
}

type limit = ratelimiter.RateLimiter[any]

// source has the outcome, so that forged callbacks behind a proxy don't hide that a
// clock is wrong.
type source struct {
	network netip.Prefix
	outcome Outcome
}

// tally counts the lines of one source.
type tally struct {
	lines    limit
	unlogged atomic.Int64
}

func newLimiter() *limiter {
	return &limiter{
		lines:  ratelimiter.NewBursty[any](maxLines, linesPeriod),
		tally:  recent.New[source, *tally](rememberSources),
		failed: recent.New[netip.Prefix, limit](rememberSources),
	}
}

// tooMany reports whether too much from there could not be verified, this included.
func (l *limiter) tooMany(remote string) bool {
	failed, _ := l.failed.Add(network(remote), ratelimiter.NewBursty[any](maxFailures, failuresPeriod))
	return !failed.TryAcquirePermit()
}

// line reports whether a refusal is logged, and how many of its source were not since
// the last that was.
func (l *limiter) line(remote string, outcome Outcome) (unlogged int64, ok bool) {
	t, _ := l.tally.Add(source{network(remote), outcome}, &tally{lines: ratelimiter.NewBursty[any](maxSourceLines, time.Minute)})
	if !t.lines.TryAcquirePermit() || !l.lines.TryAcquirePermit() {
		t.unlogged.Add(1)
		return 0, false
	}
	return t.unlogged.Swap(0), true
}

// network returns the address, or the 64 bits of an IPv6 address that one customer has
// at least. Whatever has no IP address is one network.
func network(remote string) netip.Prefix {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	address, bits := from.Addr().Unmap(), 64
	if address.Is4() {
		bits = 32
	}
	p, _ := address.Prefix(bits) // it has as many
	return p
}
