package load

import (
	"math"
	"math/rand/v2"
	"time"
)

// never is later than the end of any run.
const never = time.Duration(math.MaxInt64)

// plan makes up the sessions one by one, so that a long run needs no more memory than a
// short one. All times count from the start.
type plan struct {
	options *Options
	random  *rand.Rand
	made    int // sessions so far
	steady  int // those offered by Rate
	bursts  int // completed bursts
	inBurst int // sessions so far in the current burst
	latest  time.Duration
}

func newPlan(o *Options) *plan {
	return &plan{options: o, random: rand.New(rand.NewPCG(o.Seed, 0))}
}

// done reports whether there are no more sessions.
func (p *plan) done() bool { return p.made == p.options.Count }

// due returns when to offer the next session in an open loop.
func (p *plan) due() time.Duration {
	return min(p.dueSteady(), p.dueBurst())
}

func (p *plan) dueSteady() time.Duration {
	if p.options.Rate == 0 {
		return never
	}
	return duration(float64(p.steady) / p.options.Rate * float64(time.Second))
}

func (p *plan) dueBurst() time.Duration {
	if p.options.Burst == 0 {
		return never
	}
	return duration(float64(p.bursts) * float64(p.options.BurstEvery))
}

// duration converts nanoseconds, and returns never if they are too large.
func duration(nanoseconds float64) time.Duration {
	if nanoseconds >= float64(never) {
		return never
	}
	return time.Duration(nanoseconds)
}

// choice holds the random choices about a session.
type choice struct {
	index  int
	due    time.Duration // when the original is due
	copied bool
	copy   time.Duration // when the copy is due
	forged bool
	forge  time.Duration // when the badly signed one is due
	how    forgery
	resign bool
}

// forgery is a kind of wrong signature.
type forgery int

const (
	otherSecret forgery = iota
	otherTimestamp
	otherDigit
	forgeries // the number of kinds
)

// next makes up the next session, which is offered at the given time.
func (p *plan) next(at time.Duration) choice {
	if p.options.open() {
		if p.dueBurst() <= p.dueSteady() {
			if p.inBurst++; p.inBurst == p.options.Burst {
				p.bursts, p.inBurst = p.bursts+1, 0
			}
		} else {
			p.steady++
		}
	}
	// Each session draws the same random numbers in the same order for all options, so
	// that an additional option doesn't change the effect of the others.
	var random [7]float64
	for i := range random {
		random[i] = p.random.Float64()
	}
	spread := func(r float64) time.Duration { return duration(r * float64(p.options.Spread)) }
	c := choice{
		index:  p.made,
		due:    at + spread(random[0]),
		copied: random[1] < p.options.Duplicates,
		forged: random[3] < p.options.BadSignatures,
		forge:  at + spread(random[4]),
		how:    forgery(random[5] * float64(forgeries)),
		resign: random[6] < p.options.Resign,
	}
	c.copy = c.due + spread(random[2])
	p.made++
	p.latest = at
	return c
}
