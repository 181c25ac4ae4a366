package telemetry

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"
)

const (
	// bufferedLines is how many lines of the log wait for its reader: ten seconds of a few hundred callbacks a second.
	bufferedLines = 4096
	// lastLines is how long a stop waits for the reader of the last lines.
	lastLines = time.Second
)

// Buffer is a writer for a log with a reader that may stop reading: no write waits for it, and none fails. Lines that find
// no room, or that the writer behind it refuses, are dropped and counted.
type Buffer struct {
	dropped atomic.Int64
	entries chan entry
}

// entry is a line, or a request to close flushed.
type entry struct {
	line    []byte
	flushed chan struct{}
}

// NewBuffer returns a buffer that writes to w for as long as the process lives.
func NewBuffer(w io.Writer) *Buffer {
	b := &Buffer{entries: make(chan entry, bufferedLines)}
	go func() {
		for e := range b.entries {
			if e.flushed != nil {
				close(e.flushed)
			} else if _, err := w.Write(e.line); err != nil {
				b.dropped.Add(1)
			}
		}
	}()
	return b
}

// Write implements [io.Writer]. Each call is a line.
func (b *Buffer) Write(line []byte) (int, error) {
	select {
	case b.entries <- entry{line: bytes.Clone(line)}:
	default:
		b.dropped.Add(1)
	}
	return len(line), nil
}

// Dropped returns how many lines were dropped.
func (b *Buffer) Dropped() int64 { return b.dropped.Load() }

// Flush waits until all lines are written, for at most a second.
func (b *Buffer) Flush() {
	flushed, timeout := make(chan struct{}), time.After(lastLines)
	select {
	case b.entries <- entry{flushed: flushed}:
		select {
		case <-flushed:
		case <-timeout:
		}
	case <-timeout:
	}
}
