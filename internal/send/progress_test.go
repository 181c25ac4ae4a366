package send

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// On a terminal there is a bar with the numbers that matter, and in the end none.
func TestBar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s state
		s.decided.Store(250)
		s.acknowledged.Store(240)
		s.lost.Store(10)
		s.retrying.Store(3)
		var screen strings.Builder
		done, gone := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(gone)
			s.show(&screen, 1000, true, done)
		}()
		time.Sleep(redrawEvery + 1) // costs no time in a bubble
		synctest.Wait()
		if drawn := screen.String(); !strings.HasPrefix(drawn, "\r250 / 1000 [") || !strings.Contains(drawn, "25.00% 240 acknowledged, 3 retrying, 10 lost") {
			t.Errorf("drawn: %q", drawn)
		}
		close(done)
		<-gone
		if drawn := screen.String(); !strings.HasSuffix(drawn, "\r") || strings.Contains(drawn, "\n") {
			t.Errorf("left behind: %q", drawn)
		}
	})
}
