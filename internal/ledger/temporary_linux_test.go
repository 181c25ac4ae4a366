package ledger_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/session"
)

// No bill needs a folder for temporary files, which a read-only root doesn't have.
func TestSortingALargeSessionMakesNoFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("large, for the race detector too, and nothing in it is concurrent")
	}
	l := open(t, "sqlite:"+filepath.Join(t.TempDir(), "ledger.db"))
	if err := l.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const stays = 60_000
	l.FillSession(t, session.ID{AppID: app, RoomSessionID: life}, stays)
	n := 0
	for _, err := range l.Stays(t.Context(), session.ID{AppID: app, RoomSessionID: life}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n > 1 {
			continue
		}
		// Sorted by now, and not yet read. SQLite opens such a file without a name.
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range open {
			if file, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasSuffix(file, " (deleted)") {
				t.Errorf("%s is open", file)
			}
		}
	}
	if n != stays {
		t.Errorf("%d stays", n)
	}
}
