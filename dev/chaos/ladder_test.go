//go:build linux

package main

import (
	"testing"
	"time"
)

func TestNoCallbackIsLostByBadLuckAlone(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }
	for _, tt := range []struct {
		name     string
		closed   [][2]int
		from, to int
		want     bool
	}{
		{"the first", nil, 0, 5, true},
		{"for as long as ZEGO tries", nil, 0, 70, false},
		{"one that leaves three attempts", nil, 0, 10, true},
		{"and another at the one before the last", [][2]int{{0, 10}}, 30, 31, true},
		{"one that leaves the last two, and another at one of these", [][2]int{{0, 16}}, 30, 31, false},
		{"and another long after", [][2]int{{0, 10}}, 120, 125, true},
		{"one after the other", [][2]int{{0, 3}, {5, 8}, {13, 16}}, 29, 32, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l ladder
			for _, c := range tt.closed {
				l.closed(at(c[0]), at(c[1]))
			}
			if got := l.bears(at(tt.from), at(tt.to)); got != tt.want {
				t.Errorf("bears %v, want %v", got, tt.want)
			}
		})
	}
}
