//go:build linux

package main

import (
	"time"

	"github.com/closeouthq/closeout/internal/send"
)

const (
	// starting is how long a webhook may take until it answers.
	starting = 3 * time.Second
	// answering is how long an attempt may take that is refused in the end. The next
	// one is counted from then.
	answering = 2 * time.Second
	// spare is how many of a callback's attempts nothing that is broken on purpose
	// stands against.
	spare = 2
)

// attempts are when ZEGO tries a callback, from the first time on.
var attempts = func() []time.Duration {
	all := []time.Duration{0}
	for _, pause := range send.Ladder {
		all = append(all, all[len(all)-1]+pause)
	}
	return all
}()

// ladder sees to it that of each callback's attempts some find a webhook that can
// take them. Without it, bad luck alone could lose one.
type ladder struct{ times []span }

// span is a time in which no callback could be taken.
type span struct{ from, to time.Time }

// bears reports whether there may be another such time.
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

// closed notes such a time.
func (l *ladder) closed(from, to time.Time) { l.times = append(l.times, span{from, to}) }
