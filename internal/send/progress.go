package send

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cheggaaa/pb/v3"
	"github.com/mattn/go-isatty"
)

const (
	redrawEvery = 200 * time.Millisecond
	lineEvery   = 10 * time.Second
)

// isTerminal says whether someone may be watching.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// show shows how many of so many sessions are decided, until done: on a terminal
// as a bar, which it takes away in the end, and elsewhere in a line now and then.
func (s *state) show(w io.Writer, count int, terminal bool, done <-chan struct{}) {
	every, show, end := lineEvery, func() { fmt.Fprintf(w, "%d of %d sessions: %v\n", s.decided.Load(), count, s) }, func() {}
	if terminal {
		bar := pb.New(count).SetTemplateString(`{{counters .}} {{bar .}} {{percent .}} {{string . "state"}} {{etime .}}`)
		// It would otherwise redraw itself, at moments of its own.
		bar.Set(pb.Static, true).Set(pb.Terminal, true).Set(pb.CleanOnFinish, true).SetWriter(w).Start()
		every = redrawEvery
		show = func() { bar.SetCurrent(s.decided.Load()).Set("state", s.String()).Write() }
		end = func() { bar.Finish().Write() }
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			show()
		case <-done:
			end()
			return
		}
	}
}

// String says what became of the sessions so far.
func (s *state) String() string {
	return fmt.Sprintf("%d acknowledged, %d retrying, %d lost", s.acknowledged.Load(), s.retrying.Load(), s.lost.Load())
}
