// Package progress shows how far something is that takes long: on a terminal as a
// bar, elsewhere in a line now and then.
package progress

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cheggaaa/pb/v3"
	"github.com/mattn/go-isatty"

	"github.com/closeouthq/closeout/internal/printable"
)

const (
	redrawEvery = 200 * time.Millisecond
	lineEvery   = 10 * time.Second
)

// Bar is what is shown.
type Bar struct {
	// Total tells how many there are, and What they are, in the plural. Bytes says
	// that they are bytes.
	Total func() int64
	What  string
	Bytes bool
	// Done tells how many are done, and State, unless it is nil, what became of them.
	Done  func() int64
	State func() string
}

// Of is a total that is known.
func Of(total int64) func() int64 { return func() int64 { return total } }

// Start shows the bar until stop is called, and takes it away then.
func (b Bar) Start(w io.Writer) (stop func()) {
	if IsTerminal(w) {
		w = printable.Unwrap(w) // the bar moves the cursor
	}
	done, shown := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(shown)
		b.show(w, IsTerminal(w), done)
	}()
	return func() { close(done); <-shown }
}

// IsTerminal reports whether someone may be watching.
func IsTerminal(w io.Writer) bool {
	f, ok := printable.Unwrap(w).(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

func (b Bar) show(w io.Writer, terminal bool, done <-chan struct{}) {
	state := func(before string) string {
		if b.State == nil {
			return ""
		}
		return before + b.State()
	}
	every, show, end := lineEvery, func() { fmt.Fprintf(w, "%d of %d %s%s\n", b.Done(), b.Total(), b.What, state(": ")) }, func() {}
	if terminal {
		bar := pb.New64(b.Total()).Set(pb.Bytes, b.Bytes).SetTemplateString(`{{counters .}} {{bar .}} {{percent .}} {{string . "state"}} {{etime .}}`)
		// It would otherwise redraw itself, at moments of its own.
		bar.Set(pb.Static, true).Set(pb.Terminal, true).Set(pb.CleanOnFinish, true).SetWriter(w).Start()
		every = redrawEvery
		show = func() { bar.SetTotal(b.Total()).SetCurrent(b.Done()).Set("state", state("")).Write() }
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
