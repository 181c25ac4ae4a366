package service

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// A start that waits for a hanging disk can be stopped, and logs what it waits for.
func TestHangingStartIsLoggedAndCanBeStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := make(chan struct{})
		defer close(up)
		var lines bytes.Buffer
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(2*time.Minute, stop)
		_, err := patiently(ctx, slog.New(slog.NewTextHandler(&lines, nil)), "open the inbox", func() (int, error) { <-up; return 1, nil })
		if !errors.Is(err, context.Canceled) || strings.Count(lines.String(), `msg="start waits" for="open the inbox"`) != 2 {
			t.Errorf("%v, logged:\n%s", err, &lines)
		}
	})
}

// A stop closes everything, the last opened first. If something hangs, the stop ends in time with an
// error that names it.
func TestStopEndsInTime(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			up := make(chan struct{})
			var closed []string
			opened := &closers{}
			opened.add("first", func() { closed = append(closed, "first") })
			opened.add("the inbox", func() {
				if hangs {
					<-up
				}
				closed = append(closed, "the inbox")
			})
			ctx, stop := context.WithCancel(t.Context())
			group, running := errgroup.WithContext(ctx)
			group.Go(func() error { <-running.Done(); opened.close(); return nil })
			began := time.Now()
			stop()
			err := opened.wait(running, group, time.Minute, slog.New(slog.DiscardHandler))
			switch {
			case !hangs && (err != nil || strings.Join(closed, ", ") != "the inbox, first"):
				t.Errorf("%v, closed %v", err, closed)
			case hangs && (err == nil || !strings.Contains(err.Error(), "the inbox has not ended within 1m0s") || time.Since(began) != time.Minute):
				t.Errorf("%v after %v", err, time.Since(began))
			}
			close(up)
			synctest.Wait()
		})
	}
}
