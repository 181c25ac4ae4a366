package webhook

import (
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/closeouthq/closeout/internal/recent"
)

// refusals says which refusals get a line in the log, and which have to wait for
// their answer. The lines are what is dear in a flood of forged callbacks; to read
// and verify one takes microseconds, and must not be spared: behind a proxy all
// callbacks, good ones too, have one address, and what a proxy says of another
// anybody can say. So nothing is refused for where it comes from; but what could
// not be verified may be answered late.
type refusals struct {
	lines  *rate.Limiter
	of     *recent.Map[source, *tally]
	failed *recent.Map[netip.Prefix, *rate.Limiter]
}

// source is who was refused, and why: so that, behind a proxy, forged callbacks
// don't hide that a clock is wrong.
type source struct {
	network netip.Prefix
	outcome Outcome
}

// tally is what is known of a source.
type tally struct {
	lines    *rate.Limiter
	unlogged atomic.Int64
}

func newRefusals() *refusals {
	return &refusals{rate.NewLimiter(linesPerSecond, linesAtOnce), recent.New[source, *tally](rememberSources), recent.New[netip.Prefix, *rate.Limiter](rememberSources)}
}

// tooMany says whether so much from there could not be verified, this included,
// that it is enough.
func (r *refusals) tooMany(remote string) bool {
	from := network(remote)
	failed, found := r.failed.Get(from)
	if !found {
		failed, _ = r.failed.Add(from, rate.NewLimiter(failuresPerSecond, failuresAtOnce))
	}
	return !failed.Allow()
}

// line says whether the refusal gets a line, and if so how many of its source
// got none since the last.
func (r *refusals) line(remote string, outcome Outcome) (unlogged int64, ok bool) {
	from := source{network(remote), outcome}
	t, found := r.of.Get(from)
	if !found {
		t, _ = r.of.Add(from, &tally{lines: rate.NewLimiter(rate.Every(time.Minute/sourceLines), sourceLines)})
	}
	if !t.lines.Allow() || !r.lines.Allow() {
		t.unlogged.Add(1)
		return 0, false
	}
	return t.unlogged.Swap(0), true
}

// network is the address, and of IPv6 the 64 bits that one customer has at
// least. All that has no IP address is the same to us.
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
