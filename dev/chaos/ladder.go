//go:build linux

package main

import (
	"time"

	"github.com/closeouthq/closeout/internal/send"
)

const (
	// starting bounds the time until a started webhook answers.
	starting = 3 * time.Second
	// answering bounds the duration of a refused attempt. ZEGO counts the next pause from
	// its end.
	answering = 2 * time.Second
	// spare is the number of attempts of each callback that no fault of this test may
	// block.
	spare = 2
)

// attempts are the times of ZEGO's attempts, since the first.
var attempts = func() []time.Duration {
	all := []time.Duration{0}
	for _, pause := range send.Ladder {
		all = append(all, all[len(all)-1]+pause)
	}
	return all
}()

// ladder makes sure that some attempts of each callback find a webhook that can accept
// it. Otherwise bad luck alone could lose a callback.
type ladder struct{ times []span }

// span is a time in which no callback could be accepted.
type span struct{ from, to time.Time }

// bears reports whether there may be another such time span.
func (l *ladder) bears(from, to time.Time) bool {
	all := append([]span{{from, to}}, l.times...)
	last := attempts[len(attempts)-1] + time.Duration(len(attempts))*answering
	for first := from.Add(-last); first.Before(to); first = first.Add(answering / 4) {
		failed := 0
		for n, after := range attempts {
			early := first.Add(after)
			late := early.Add(time.Duration(n+1) * answering)
			for _, s := range all {
				if early.Before(s.to) && late.After(s.from) {
					failed++
					break
				}
			}
		}
		if failed > len(attempts)-spare {
			return false
		}
	}
	return true
}

// closed records a span.
func (l *ladder) closed(from, to time.Time) { l.times = append(l.times, span{from, to}) }
