package archive

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

func openDir(t *testing.T, dir, options string) *blob.Bucket {
	t.Helper()
	b, err := OpenBucket(t.Context(), "file://"+filepath.ToSlash(dir)+options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func makeFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func list(ctx context.Context, b *blob.Bucket, prefix string, folders bool) (keys []string, err error) {
	for o, err := range List(ctx, b, prefix, folders) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, o.Key)
	}
	return keys, nil
}

// Pages of every size add up to the whole list, in the order of the keys.
func TestFolderIsListedInKeyOrder(t *testing.T) {
	dir := t.TempDir()
	all := []string{"1/2/a.mp4", "1/2/b/c.mp4", "1/2/b.mp4", "1/20/a.mp4", "a-b", "a/b", "a.mp4", "ab/c", "b"}
	makeFiles(t, dir, append(all, "1/2/a.mp4.attrs", "1/2/.closeout-parts/x", ".closeout-parts/y", "lost+found/z")...)
	slices.Sort(all)
	b := openDir(t, dir, "")
	for prefix, want := range map[string][]string{
		"": all, "1/2": {"1/2/a.mp4", "1/2/b.mp4", "1/2/b/c.mp4", "1/20/a.mp4"}, "1/2/": {"1/2/a.mp4", "1/2/b.mp4", "1/2/b/c.mp4"}, "1/2/b": {"1/2/b.mp4", "1/2/b/c.mp4"},
		"a": {"a-b", "a.mp4", "a/b", "ab/c"}, "b": {"b"}, "b/": nil, "none/": nil, "1/2/a.mp4/": nil, "none/none": nil,
	} {
		for size := 1; size <= len(all)+1; size++ {
			var got []string
			for token := blob.FirstPageToken; len(token) > 0; {
				objects, next, err := b.ListPage(t.Context(), token, size, &blob.ListOptions{Prefix: prefix})
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range objects {
					got = append(got, o.Key)
				}
				token = next
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%q by %d: %q, want %q", prefix, size, got, want)
			}
		}
	}
	if got, err := list(t.Context(), b, "", true); err != nil || !slices.Equal(got, []string{"1/", "a-b", "a.mp4", "a/", "ab/", "b"}) {
		t.Errorf("folders %q, %v", got, err)
	}
	if got, err := list(t.Context(), openDir(t, dir, "?prefix=1/"), "2/", false); err != nil || len(got) != 3 || got[0] != "2/a.mp4" {
		t.Errorf("below a prefix %q, %v", got, err)
	}
}

// restrict takes root's right to read every file in dir from the test, if the system can do that for
// a single test.
var restrict = func(t *testing.T, _ string) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
}

// A folder that can't be read is an error, and doesn't count as empty.
func TestUnreadableFolderIsAnError(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"the session's folder": {func(dir string) error { return os.Chmod(filepath.Join(dir, "1", "2"), 0) }, "permission denied"},
		"a folder above":       {func(dir string) error { return os.Chmod(filepath.Join(dir, "1"), 0) }, "permission denied"},
		"an inner folder":      {func(dir string) error { return os.Chmod(filepath.Join(dir, "1", "2", "in"), 0) }, "permission denied"},
		"the root":             {func(dir string) error { return os.Chmod(dir, 0) }, "permission denied"},
		"a root that is gone":  {os.RemoveAll, "open the bucket's folder"},
		"another root in its place": {func(dir string) error {
			return errors.Join(os.Rename(dir, dir+"-away"), os.Mkdir(dir, 0o700))
		}, "isn't the folder that was there at the start"},
		"a link to a folder": {func(dir string) error { return os.Symlink("in", filepath.Join(dir, "1", "2", "link")) }, "1/2/link is a symbolic link, want files and folders themselves: it leads to a folder"},
		"a link to nothing":  {func(dir string) error { return os.Symlink("nowhere", filepath.Join(dir, "1", "2", "link")) }, "1/2/link is a symbolic link"},
		"a link that leads out": {func(dir string) error {
			return os.Symlink("/etc/hostname", filepath.Join(dir, "1", "2", "link"))
		}, "1/2/link is a symbolic link, want files and folders themselves: "},
		"a session that is a link out": {func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "1", "2"), dir+"-2"), os.Symlink(dir+"-2", filepath.Join(dir, "1", "2")))
		}, "path escapes from parent"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "rec")
			makeFiles(t, dir, "1/2/a.mp4", "1/2/in/b.mp4")
			restrict(t, dir)
			b := openDir(t, dir, "")
			if got, err := list(t.Context(), b, "1/2/", false); err != nil || len(got) != 2 {
				t.Fatalf("before: %q, %v", got, err)
			}
			if err := tt.spoil(dir); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				for _, folder := range []string{".", "1", "1/2", "1/2/in"} {
					_ = os.Chmod(filepath.Join(dir, folder), 0o700) // #nosec G302 -- to be removed
				}
			})
			got, err := list(t.Context(), b, "1/2/", false)
			if err == nil || !strings.Contains(err.Error(), tt.want) || gcerrors.Code(err) == gcerrors.NotFound {
				t.Errorf("%q, error %v, want one with %q", got, err, tt.want)
			}
		})
	}
}

// The bucket's folder may itself be a link, as the operator configured it.
func TestLinkedFolderIsListed(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, filepath.Join(dir, "real"), "1/2/manifest.json")
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var found []string
	for session, err := range Sessions(t.Context(), openDir(t, filepath.Join(dir, "link"), "")) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, session)
	}
	if !slices.Equal(found, []string{"1/2/"}) {
		t.Errorf("sessions %q", found)
	}
	// A link in the folder that leads out of it is an error.
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "real", "3")); err != nil {
		t.Fatal(err)
	}
	var fault error
	for _, err := range Sessions(t.Context(), openDir(t, filepath.Join(dir, "link"), "")) {
		fault = errors.Join(fault, err)
	}
	if fault == nil || !strings.Contains(fault.Error(), "3 is a symbolic link") {
		t.Errorf("error %v", fault)
	}
}

// No key and no link can be used to read, write or delete outside the folder.
func TestNoKeyLeadsOutOfAFolder(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, dir, "secret", "rec/1/2/a.mp4")
	if err := os.Symlink(filepath.Join(dir, "secret"), filepath.Join(dir, "rec", "1", "2", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "rec", "up")); err != nil {
		t.Fatal(err)
	}
	b := openDir(t, filepath.Join(dir, "rec"), "")
	for _, key := range []string{"1/2/link", "up/secret", "../secret", "1/../../secret", "/" + filepath.Join(dir, "secret"), "./../secret", "1/2/../../../secret", "..", "1//2", "1/2/a.mp4.attrs"} {
		if got, err := b.ReadAll(t.Context(), key); err == nil {
			t.Errorf("read %q at %q", got, key)
		}
		if _, err := b.Attributes(t.Context(), key); err == nil {
			t.Errorf("%q was found", key)
		}
		if err := b.WriteAll(t.Context(), key, []byte("x"), nil); err == nil && key != "1/2/link" { // the write replaces the link
			t.Errorf("%q was written", key)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "secret")); err != nil || string(got) != filepath.Join(dir, "secret") {
		t.Errorf("the file outside has %q, %v", got, err)
	}
}

// A key that no file can have is not found, so that it delays no other file. A backslash is an
// ordinary character, as in object stores.
func TestImpossibleFileNameIsAbsent(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, dir, `1/a\b.mp4`)
	b := openDir(t, dir, "")
	for _, key := range []string{"1/x.attrs", "1/..", "../x", "1//x", "1/\x00"} {
		if _, err := b.Attributes(t.Context(), key); gcerrors.Code(err) != gcerrors.NotFound {
			t.Errorf("%q: %v", key, err)
		}
	}
	if _, err := b.Attributes(t.Context(), `1/a\b.mp4`); err != nil {
		t.Error(err)
	}
	if keys, err := list(t.Context(), b, `1/a\b`, false); err != nil || !slices.Equal(keys, []string{`1/a\b.mp4`}) {
		t.Errorf("listed %q, %v", keys, err)
	}
}

func TestArchivedFilesArePrivate(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "archive")
	w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: "file://" + filepath.ToSlash(dir) + "?create_dir=true"})
	w.moved(w.put("a/b.mp4", []byte("a recording")))
	files := 0
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
		info, err := d.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			t.Errorf("%s has the mode %v", path, mode)
		}
		if !d.IsDir() {
			files++
		}
		return nil
	})
	if files != 3 { // the recording, its attributes and the manifest
		t.Errorf("%d files", files)
	}
}

// SMB and FUSE can't sync a folder, so that error is ignored. Others, such as a failing disk,
// aren't.
func TestUnsyncableFolderIsNoError(t *testing.T) {
	defer func(f func(*os.File) error) { syncFolder = f }(syncFolder)
	for fault, fine := range map[error]bool{syscall.EINVAL: true, syscall.ENOTSUP: true, syscall.ENOSYS: true, syscall.EIO: false, syscall.ENOSPC: false} {
		syncFolder = func(f *os.File) error { return &os.PathError{Op: "sync", Path: f.Name(), Err: fault} }
		w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: folderURL(t)})
		if _, err := w.move(Progress{}, w.put("a.mp4", []byte("a"))); fine != (err == nil) || !fine && !errors.Is(err, fault) {
			t.Errorf("%v: error %v", fault, err)
		}
	}
}
