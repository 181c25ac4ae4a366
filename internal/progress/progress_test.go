package progress

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var quarter = Bar{Total: Of(1000), What: "sessions", Done: func() int64 { return 250 }, State: func() string { return "240 acknowledged, 10 lost" }}

// On a terminal, progress is a single line, which is erased at the end.
func TestProgressOnATerminalIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen strings.Builder
		done, gone := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(gone)
			quarter.show(&screen, true, done)
		}()
		time.Sleep(redrawEvery + 1) // takes no time in a synctest bubble
		synctest.Wait()
		if drawn := screen.String(); drawn != "\r\x1b[K250 of 1000 sessions: 240 acknowledged, 10 lost" {
			t.Errorf("drawn: %q", drawn)
		}
		close(done)
		<-gone
		if drawn := screen.String(); !strings.HasSuffix(drawn, "\r\x1b[K") || strings.Contains(drawn, "\n") {
			t.Errorf("left behind: %q", drawn)
		}
	})
}

func TestProgressInALogIsALineNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		stop := quarter.Start(&log)
		time.Sleep(2*lineEvery + 1)
		stop()
		const line = "250 of 1000 sessions: 240 acknowledged, 10 lost\n"
		if log.String() != line+line {
			t.Errorf("logged %q", log.String())
		}
	})
}
