// Package progress shows the progress of a long operation: in one line on a terminal, elsewhere in a line now and then.
package progress

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/closeouthq/closeout/internal/printable"
)

const (
	redrawEvery = 200 * time.Millisecond
	lineEvery   = 10 * time.Second
)

// Bar shows the progress of one operation.
type Bar struct {
	// Total returns the number of items, and What names them in the plural.
	Total func() int64
	What  string
	// Done returns the number of finished items. State, if not nil, describes their results.
	Done  func() int64
	State func() string
}

// Of returns a known total.
func Of(total int64) func() int64 { return func() int64 { return total } }

// Start shows the bar until stop is called. On a terminal stop clears it.
func (b Bar) Start(w io.Writer) (stop func()) {
	terminal := IsTerminal(w)
	if terminal {
		w = printable.Unwrap(w) // the bar moves the cursor
	}
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		b.show(w, terminal, done)
	}()
	return func() { close(done); <-stopped }
}

// IsTerminal reports whether w, or the writer behind a [printable.Writer], is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := printable.Unwrap(w).(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

func (b Bar) show(w io.Writer, terminal bool, done <-chan struct{}) {
	const clear = "\r\x1b[K"
	every, before, after := lineEvery, "", "\n"
	if terminal {
		every, before, after = redrawEvery, clear, ""
		defer io.WriteString(w, clear) //nolint:errcheck // nobody reads it
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			state := ""
			if b.State != nil {
				state = ": " + b.State()
			}
			fmt.Fprintf(w, "%s%d of %d %s%s%s", before, b.Done(), b.Total(), b.What, state, after)
		case <-done:
			return
		}
	}
}
