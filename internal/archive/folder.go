package archive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"
)

// folderStore is a folder. It does what the library for buckets does and in the
// same form, and besides syncs what it writes, keeps files in the making apart, and
// takes for its own what no other process made.
type folderStore struct {
	*anyStore
	path    func(key string) string
	sidecar bool // metadata has a file of its own
}

// parts is where files in the making lie, in a session's folder.
const parts = ".closeout-parts"

func (s *folderStore) sums() *sums { return &sums{sha256: sha256.New()} }

func (s *folderStore) put(_ context.Context, key string, c *content) error {
	return s.write(key, func(f *os.File) error {
		// Without WriterTo and ReaderFrom there is a buffer of ours, and no other.
		if _, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{c.reader}, make([]byte, 256<<10)); err != nil {
			return err
		}
		if !s.sidecar {
			return nil
		}
		c.meta[metaSHA256] = hex.EncodeToString(c.sums.sha256.Sum(nil))
		attrs, err := json.Marshal(map[string]any{
			"user.content_type": cmp.Or(c.state.kind, "application/octet-stream"), "user.metadata": c.meta,
		})
		if err != nil {
			return err
		}
		return os.WriteFile(s.path(key)+".attrs", append(attrs, '\n'), 0o666) // #nosec G306 -- as the library for buckets has it
	}, os.Rename)
}

// write makes a file: beside the others, synced, and named when it is whole.
func (s *folderStore) write(key string, fill func(*os.File) error, name func(from, to string) error) (err error) {
	path := s.path(key)
	session := s.path(sessionOf(key))
	var f *os.File
	for again := range 10 {
		for _, folder := range []string{filepath.Dir(path), filepath.Join(session, parts)} {
			if err := os.MkdirAll(folder, 0o777); err != nil { // #nosec G301 -- as the library for buckets has it
				return err
			}
		}
		f, err = os.OpenFile(filepath.Join(session, parts, uuid.NewString()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) // #nosec G302 G304 -- as above
		// Another worker of the session may have removed the folder meanwhile, being done.
		if !errors.Is(err, fs.ErrNotExist) || again == 9 {
			break
		}
	}
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	defer f.Close()
	if err := fill(f); err != nil {
		return err
	}
	// A manifest that outlives a power failure is to list what has outlived it, too.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return name(f.Name(), path)
}

// settle makes the names of files last, which with each file by itself would take
// the disk as long as their content. A file that has lost its name is copied again.
func (s *folderStore) settle(keys []string) error {
	synced := map[string]bool{}
	for _, key := range keys {
		if folder := filepath.Dir(s.path(key)); !synced[folder] {
			synced[folder] = true
			if err := syncFolders(folder, s.path(sessionOf(key))); err != nil {
				return fmt.Errorf("sync the archive's folders: %w", err)
			}
		}
	}
	return nil
}

// sessionOf is the folder of the session that a key belongs to.
func sessionOf(key string) string {
	for i, slashes := 0, 0; i < len(key); i++ {
		if key[i] == '/' {
			if slashes++; slashes == 2 {
				return key[:i+1]
			}
		}
	}
	return ""
}

// syncFolders syncs the entries of a folder and those above it, up to the other.
func syncFolders(folder, top string) error {
	for {
		f, err := os.Open(folder) // #nosec G304 -- a folder of ours
		if err != nil {
			return err
		}
		err = f.Sync()
		_ = f.Close()
		if err != nil {
			return err
		}
		if folder == filepath.Dir(filepath.Clean(top)) || folder == filepath.Dir(folder) {
			return nil
		}
		folder = filepath.Dir(folder)
	}
}

func (s *folderStore) look(_ context.Context, key string) (kept, error) {
	info, err := os.Stat(s.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, errNone
	}
	if err != nil {
		return kept{}, err
	}
	k := kept{size: info.Size()}
	var attrs struct {
		Metadata map[string]string `json:"user.metadata"`
	}
	if b, err := os.ReadFile(s.path(key) + ".attrs"); err == nil && json.Unmarshal(b, &attrs) == nil {
		k.mark, k.sha256 = attrs.Metadata[metaSource], fromHex(attrs.Metadata[metaSHA256])
	}
	return k, nil
}

// create writes a file that no other process has written: a link, unlike a rename,
// takes no other's place.
func (s *folderStore) create(_ context.Context, key string, content []byte) error {
	err := s.write(key, func(f *os.File) error {
		_, err := io.Copy(f, bytes.NewReader(content))
		return err
	}, func(from, to string) error {
		err := os.Link(from, to)
		if err != nil && !errors.Is(err, fs.ErrExist) { // a file system without links
			if _, there := os.Stat(to); there == nil {
				return errExists
			}
			return os.Rename(from, to)
		}
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		return errExists
	}
	if err != nil {
		return err
	}
	return s.settle([]string{key})
}

func (s *folderStore) tidy(_ context.Context, folder string) {
	if folder != "" && sessionOf(folder) == folder {
		_ = os.RemoveAll(filepath.Join(s.path(folder), parts))
	}
}
