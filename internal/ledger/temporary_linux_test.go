package ledger_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/ledger"
)

// No bill needs a folder for temporary files, which a read-only root doesn't have.
func TestSortingALargeSessionMakesNoFiles(t *testing.T) {
	l := open(t, "sqlite:"+filepath.Join(t.TempDir(), "ledger.db"))
	if err := l.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const stays = 60_000
	l.FillSession(t, app, life, stays)
	n := 0
	if err := l.Stays(t.Context(), app, life, func(ledger.StayOf) error {
		if n++; n > 1 {
			return nil
		}
		// Sorted by now, and not yet read. SQLite opens such a file without a name.
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		for _, fd := range open {
			if file, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasSuffix(file, " (deleted)") {
				t.Errorf("%s is open", file)
			}
		}
		return nil
	}); err != nil || n != stays {
		t.Errorf("%d stays, %v", n, err)
	}
}
