package inbox

import (
	"context"
	"log/slog"
	"testing"
)

// A caller whose context ends may still be told that all went well, and then it
// has to be true.
func TestWhatIsReportedAsWrittenIsWritten(t *testing.T) {
	b, err := Open(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	// Whether it is taken on and what is heard of it are a matter of chance then.
	for b.enqueue(gone, newOp(insert, "a", []byte("body"), 1)) != nil {
	}
	if err := b.Probe(t.Context()); err != nil { // is behind it
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}
