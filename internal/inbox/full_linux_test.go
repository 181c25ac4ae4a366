package inbox_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/testenv"
)

// The test fills a small file system of its own. To mount it takes privileges.
func TestFullDiskRefusesAndLosesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		testenv.Skip(t, "can't mount a small file system here: "+err.Error())
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	folder := filepath.Join(dir, "inbox")
	var out acknowledged
	cmd := player(t, folder, &out)
	wait(t, "the disk is full", func() bool { _, refused := out.counts(); return refused > 100 })
	// Entries on the full disk can be read, and the inbox takes entries again once there is
	// space.
	s, err := inbox.Attach(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	if stats, err := s.Stats(t.Context()); err != nil || stats.Waiting == 0 {
		t.Errorf("%+v, %v", stats, err)
	}
	_ = s.Close()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=128m"); err != nil {
		t.Fatal(err)
	}
	n, _ := out.counts()
	wait(t, "it takes entries again", func() bool { more, _ := out.counts(); return more > n+100 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	out.check(t, open(t, folder))
}
