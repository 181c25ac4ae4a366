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

// reader is who reads a log: it may stop, go on, and go away.
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

// Whatever becomes of a log's reader, whoever logs doesn't wait, and what is lost is
// counted.
func TestBlockedLogDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{reads: make(chan struct{})}
		b := NewBuffer(r)
		defer close(b.entries)
		log := NewLogger(b, slog.LevelInfo, true)
		const lines = 10_000
		text := strings.Repeat("x", 1000)
		for range lines {
			log.Info("m", "text", text) // would hang if it waited: nothing reads
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
		close(r.reads) // it goes on
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

// Lines of the libraries that have logs of their own are lines of ours.
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
