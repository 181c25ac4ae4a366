package inbox_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/closeouthq/closeout/internal/inbox"
)

// A page is also bounded in bytes. All cuts large bodies, in the process that owns the inbox
// and in another one.
func TestPageIsBoundedByBytes(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	const mb = 1 << 20
	sizes := []int{300, mb / 2, mb / 4, 2 * mb, 300, mb / 2, mb / 2, mb / 2, 3 * mb, 300, 300}
	var want []string
	for n, size := range sizes {
		key := fmt.Sprintf("k%02d", n)
		if _, err := b.Put(t.Context(), inbox.Entry{Key: key, Body: bytes.Repeat([]byte{'x'}, size)}); err != nil {
			t.Fatal(err)
		}
		want = append(want, key)
	}
	for _, n := range []int{1, 3, 4, 8} { // make some dead letters, so that All merges two scans
		if err := b.DeadLetter(t.Context(), want[n], "a reason"); err != nil {
			t.Fatal(err)
		}
	}
	// Next returns whole bodies, and no page has more than a megabyte, unless it has a
	// single entry.
	var got []string
	for after := int64(0); ; {
		page, err := b.Next(t.Context(), after, 500)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		total := 0
		for _, e := range page {
			total += len(e.Body)
			var n int
			if _, err := fmt.Sscanf(e.Key, "k%d", &n); err != nil || len(e.Body) != sizes[n] {
				t.Errorf("%s has a body of %d bytes", e.Key, len(e.Body))
			}
			got, after = append(got, e.Key), e.ID
		}
		if total > mb && len(page) > 1 {
			t.Errorf("a page of %d entries has %d bytes", len(page), total)
		}
	}
	if w := []string{"k00", "k02", "k05", "k06", "k07", "k09", "k10"}; !slices.Equal(got, w) {
		t.Errorf("waiting: %v, want %v", got, w)
	}
	for name, s := range map[string]*inbox.Store{"the process": b.Store, "beside it": attach(t, dir)} {
		var got []string
		for e, err := range s.All(t.Context()) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(e.Body) > 4<<10 {
				t.Errorf("%s: %s is listed with %d bytes", name, e.Key, len(e.Body))
			}
			got = append(got, e.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: listed %v, want %v", name, got, want)
		}
		if e, err := s.Get(t.Context(), "k08"); err != nil || len(e.Body) != 3*mb {
			t.Errorf("%s: %d bytes, %v", name, len(e.Body), err)
		}
	}
}

// Only the owner can read the files of an inbox, even if the store's folder existed and others
// could read it.
func TestFilesAreReadableByTheirOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "inbox")
	store := filepath.Join(dir, inbox.Folder)
	if err := os.MkdirAll(store, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second round finds files and creates others
		b := open(t, dir)
		put(t, b, "a")
		files := 0
		if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || path == dir {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			want := fs.FileMode(0o600)
			if files++; d.IsDir() {
				want = 0o700
			}
			if info.Mode().Perm() != want {
				t.Errorf("%s: %v, want %v", path, info.Mode().Perm(), want)
			}
			return nil
		}); err != nil || files < 5 {
			t.Errorf("%d files, %v", files, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(store, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
