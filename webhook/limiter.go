package webhook

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/ratelimiter"

	"github.com/closeouthq/closeout/internal/recent"
)

// limiter decides which refusals are logged and which are answered late. It never refuses
// a request because of its source: behind a proxy all callbacks have the same address, and
// a forwarding header can be forged.
type limiter struct {
	lines  *bucket
	tally  *recent.Map[source, *tally]
	failed *recent.Map[netip.Prefix, *bucket]
}

// bucket is a token bucket. A limit per window would let forgers come all at once when a
// window begins.
type bucket struct {
	limiter ratelimiter.RateLimiter[any]
	ahead   time.Duration
}

// newBucket returns a full bucket that holds size tokens, and gets one each interval.
func newBucket(interval time.Duration, size int) *bucket {
	return &bucket{ratelimiter.NewSmoothWithMaxRate[any](interval), time.Duration(size-1) * interval}
}

// take takes a token, and reports whether there was one. A token of the bucket is a permit
// that the limiter gives in advance.
func (b *bucket) take() bool { return b.limiter.TryReservePermit(b.ahead) >= 0 }

// source identifies refusals that share a limit of log lines. It includes the outcome, so
// that forged callbacks behind a proxy don't hide another problem, such as a wrong clock.
type source struct {
	network netip.Prefix
	outcome Outcome
}

// tally counts the lines of one source.
type tally struct {
	lines    *bucket
	unlogged atomic.Int64
}

func newLimiter() *limiter {
	return &limiter{
		lines:  newBucket(time.Second/linesPerSecond, linesAtOnce),
		tally:  recent.New[source, *tally](rememberSources),
		failed: recent.New[netip.Prefix, *bucket](rememberSources),
	}
}

// tooMany counts a request that could not be verified. It reports whether its network has
// sent too many of them.
func (l *limiter) tooMany(remote string) bool {
	failed, _ := l.failed.Add(network(remote), newBucket(time.Second/failuresPerSecond, failuresAtOnce))
	return !failed.take()
}

// line reports whether to log a refusal. unlogged is the number of refusals of the same
// source that were not logged since the last one that was.
func (l *limiter) line(remote string, outcome Outcome) (unlogged int64, ok bool) {
	t, _ := l.tally.Add(source{network(remote), outcome}, &tally{lines: newBucket(time.Minute/sourceLines, sourceLines)})
	if !t.lines.take() || !l.lines.take() {
		t.unlogged.Add(1)
		return 0, false
	}
	return t.unlogged.Swap(0), true
}

// network returns an IPv4 address, or the /64 of an IPv6 address, because one customer has
// at least a /64. All remotes without an IP address are one network.
func network(remote string) netip.Prefix {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	address, bits := from.Addr().Unmap(), 64
	if address.Is4() {
		bits = 32
	}
	p, _ := address.Prefix(bits) // never fails
	return p
}
