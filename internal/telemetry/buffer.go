package telemetry

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// bufferedBytes is how much of the log waits for its reader: at some 300 bytes a
	// line, ten seconds of a few hundred callbacks a second.
	bufferedBytes = 1 << 20
	// lastLines is how long a stop waits for the reader of the last lines.
	lastLines = time.Second
)

// Buffer is a writer for a log whose reader may stop reading. Writes neither block nor fail.
// Lines that do not fit, or that the underlying writer rejects, are dropped and counted.
type Buffer struct {
	dropped atomic.Int64

	mu      sync.Mutex
	lines   [][]byte
	size    int
	wake    chan struct{}
	drained chan struct{} // closed while the buffer is empty
}

// NewBuffer returns a Buffer that writes to w.
func NewBuffer(w io.Writer) *Buffer {
	b := &Buffer{wake: make(chan struct{}, 1), drained: make(chan struct{})}
	close(b.drained)
	go b.write(w)
	return b
}

// Write implements [io.Writer]. Each call is a line.
func (b *Buffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.size+len(line) > bufferedBytes {
		b.dropped.Add(1)
		return len(line), nil
	}
	if b.size == 0 {
		b.drained = make(chan struct{})
	}
	b.lines = append(b.lines, append([]byte(nil), line...))
	b.size += len(line)
	select {
	case b.wake <- struct{}{}:
	default: // it is awake
	}
	return len(line), nil
}

// write writes lines until the process ends.
func (b *Buffer) write(w io.Writer) {
	for range b.wake {
		for {
			b.mu.Lock()
			lines := b.lines
			b.lines = nil
			if len(lines) == 0 {
				b.mu.Unlock()
				break
			}
			b.mu.Unlock()
			for _, line := range lines {
				if _, err := w.Write(line); err != nil {
					b.dropped.Add(1)
				}
				b.mu.Lock()
				if b.size -= len(line); b.size == 0 {
					close(b.drained)
				}
				b.mu.Unlock()
			}
		}
	}
}

// Dropped returns the number of dropped lines.
func (b *Buffer) Dropped() int64 { return b.dropped.Load() }

// Flush waits until all lines are written, for at most a second.
func (b *Buffer) Flush() {
	b.mu.Lock()
	drained := b.drained
	b.mu.Unlock()
	select {
	case <-drained:
	case <-time.After(lastLines):
	}
}
