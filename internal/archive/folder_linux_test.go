package archive

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

func init() { restrict = giveUpRoot }

// giveUpRoot gives dir and the folder around it to another user, and lets the test's thread access
// files as that user until the test ends.
func giveUpRoot(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	const nobody = 65534
	around := filepath.Dir(dir)
	if err := os.Chmod(filepath.Dir(around), 0o755); err != nil { // #nosec G302 -- to be searched by nobody
		t.Fatal(err)
	}
	if err := filepath.WalkDir(around, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	}); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	if err := syscall.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setfsuid(0); err != nil {
			t.Fatal(err) // the thread stays locked, and ends with the test
		}
		runtime.UnlockOSThread()
	})
}
