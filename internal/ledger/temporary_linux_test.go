package ledger_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/session"
)

// SQLite sorts a large session without temporary files. A read-only root has no folder for them.
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
		// The rows are sorted by now, and only one is read. SQLite deletes its temporary files as
		// soon as it has opened them.
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
