package webhook

import (
	"testing"
	"testing/synctest"
	"time"
)

// A bucket gives its size at once, and then one token after each interval.
func TestBucketRefillsTokenByToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(100*time.Millisecond, 100)
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{0, 100}, {time.Second, 10}, {50 * time.Millisecond, 0}, {50 * time.Millisecond, 1}, {time.Hour, 100}} {
			time.Sleep(step.after)
			got := 0
			for range 300 {
				if b.take() {
					got++
				}
			}
			if got != step.want {
				t.Errorf("after %v: %d tokens, want %d", step.after, got, step.want)
			}
		}
	})
}
