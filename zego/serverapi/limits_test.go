package serverapi

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimitsKeepCallsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began := limits{next: map[string]time.Time{}}, time.Now()
		wait := func(ctx context.Context, kind string, want time.Duration) {
			t.Helper()
			if err := l.wait(ctx, kind, time.Second); err != nil || time.Since(began) != want {
				t.Errorf("%s: %v after %v, want %v", kind, err, time.Since(began), want)
			}
		}
		wait(t.Context(), "a", 0)
		wait(t.Context(), "b", 0)
		wait(t.Context(), "a", time.Second)

		hurried, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := l.wait(hurried, "a", time.Second); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("a turn after the deadline: %v after %v, want a refusal at once", err, time.Since(began))
		}
		wait(t.Context(), "a", 2*time.Second) // the turn that was refused

		cancelled, stop := context.WithCancel(t.Context())
		stop()
		if err := l.wait(cancelled, "a", time.Second); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled call: %v", err)
		}
		time.Sleep(time.Second)
		for i := range maxKinds {
			wait(t.Context(), fmt.Sprint("room ", i), 3*time.Second)
		}
		time.Sleep(2 * time.Second)
		if wait(t.Context(), "a", 5*time.Second); len(l.next) != 1 {
			t.Errorf("%d kinds are kept, want the one in use", len(l.next))
		}
	})
}
