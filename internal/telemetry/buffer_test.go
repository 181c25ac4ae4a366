package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"google.golang.org/grpc/grpclog"
)

// reader is the reader of a log. It can stop, continue and go away.
type reader struct {
	mu    sync.Mutex
	reads chan struct{} // closed while it reads
	gone  bool
	read  bytes.Buffer
}

func (r *reader) Write(p []byte) (int, error) {
	<-r.reads
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return 0, errors.New("broken pipe")
	}
	return r.read.Write(p)
}

// Logging never waits for the log's reader. Lines that are lost are counted.
func TestBlockedLogDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{reads: make(chan struct{})}
		b := NewBuffer(r)
		defer close(b.entries)
		log := NewLogger(b, slog.LevelInfo, true)
		const lines = 10_000
		text := strings.Repeat("x", 1000)
		for range lines {
			log.Info("m", "text", text) // nothing reads, so this hangs if it waits
		}
		began := time.Now()
		b.Flush()
		if waited := time.Since(began); waited != lastLines {
			t.Errorf("waited %v for a reader that has stopped", waited)
		}
		dropped := b.Dropped()
		if kept := lines - dropped; kept < bufferedLines || kept > bufferedLines+1 {
			t.Errorf("%d of %d dropped", dropped, lines)
		}
		close(r.reads) // the reader continues
		b.Flush()
		if n := int64(strings.Count(r.read.String(), "\n")); n != lines-dropped {
			t.Errorf("%d lines read, %d dropped, of %d", n, dropped, lines)
		}
		r.mu.Lock()
		r.gone = true
		r.mu.Unlock()
		log.Info("m")
		b.Flush()
		if got := b.Dropped(); got != dropped+1 {
			t.Errorf("%d dropped after the reader has gone, want %d", got, dropped+1)
		}
	})
}

// Lines from libraries are written to the program's log.
func TestLibrariesUseOurLog(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	defer slog.SetDefault(before)
	log := NewLogger(&out, slog.LevelInfo, true)
	AdoptLibraries(log)
	grpclog.Error("grpc: it ", "says")
	grpclog.Info("grpc chats")
	otel.Handle(errors.New("otel says"))
	slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn).Print("net/http says")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{`"message":"grpc: it says"`, "otel says", "net/http says"}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), &out)
	}
	for n, line := range lines {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil || !strings.Contains(line, want[n]) {
			t.Errorf("%s: %v, want %q", line, err, want[n])
		}
	}
}
