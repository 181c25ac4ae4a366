package service

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestStopDrainsTheInbox(t *testing.T) {
	tests := []struct {
		name    string
		waiting int64
		moves   bool // the relay delivers callbacks
		takes   bool
		fault   error
		within  time.Duration
		left    int64
		log     string
	}{
		{"nothing in it", 0, true, true, nil, time.Hour, 0, ""},
		{"all of it", 5, true, true, nil, time.Hour, 0, "draining inbox"},
		{"Temporal is away", 5, false, false, nil, time.Hour, 5, "callbacks left in inbox"},
		{"no time", 5, false, true, nil, 0, 5, "callbacks left in inbox"},
		{"not in time", 5, false, true, nil, 60 * time.Millisecond, 5, "callbacks left in inbox"},
		{"the disk is broken", 5, false, true, errors.New("EIO"), time.Hour, 5, "EIO"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var waiting atomic.Int64
			waiting.Store(test.waiting)
			var lines bytes.Buffer
			ctx, stop := context.WithCancel(t.Context())
			closed := make(chan struct{})
			relaying, looked := make(chan struct{}), make(chan struct{})
			var once sync.Once
			b := backlog{
				relay: func(ctx context.Context) {
					close(relaying)
					<-looked // deliver nothing until the drain has read the count
					for test.moves && waiting.Load() > 0 && ctx.Err() == nil {
						waiting.Add(-1)
					}
					<-ctx.Done()
				},
				waiting: func(context.Context) (int64, error) {
					defer once.Do(func() { close(looked) })
					return waiting.Load(), test.fault
				},
				fault: func() error {
					if test.takes {
						return nil
					}
					return errors.New("away")
				},
			}
			emptied := make(chan struct{})
			go func() {
				b.empty(ctx, closed, test.within, slog.New(slog.NewTextHandler(&lines, nil)))
				close(emptied)
			}()
			<-relaying
			stop()
			select {
			case <-emptied:
				t.Fatal("stopped while callbacks were still being answered")
			case <-time.After(10 * time.Millisecond): // time to stop too early
			}
			close(closed)
			<-emptied
			if got := waiting.Load(); got != test.left {
				t.Errorf("%d are left, want %d", got, test.left)
			}
			if got := lines.String(); !strings.Contains(got, test.log) || test.log == "" && got != "" {
				t.Errorf("logged %q, want %q", got, test.log)
			}
		})
	}
}
