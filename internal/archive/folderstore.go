package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// folderStore is an archive in a folder. It syncs its files, and keeps unfinished ones apart.
type folderStore struct {
	*anyStore
	folder *folderBucket
	prefix string
}

func (s *folderStore) sums() *sums { return &sums{sha256: sha256.New()} }

func (s *folderStore) put(_ context.Context, key string, c *content) error {
	return s.folder.write(s.prefix+sessionOf(key), s.prefix+key, false, func(f io.Writer) (attributes, error) {
		// Hide WriterTo and ReaderFrom, so that only this buffer is used.
		_, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{c.reader}, make([]byte, 256<<10))
		c.meta[metaSHA256] = hex.EncodeToString(c.sums.sha256.Sum(nil))
		return attributes{c.state.kind, c.meta}, err
	})
}

// sessionOf returns the folder of a key's session.
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

// settle syncs the names of files together, because syncing each would take as long as writing
// them. A file that loses its name is copied again.
func (s *folderStore) settle(keys []string) error {
	var folders []string
	for _, key := range keys {
		folders = append(folders, path.Dir(s.prefix+key))
	}
	if err := s.folder.sync(folders); err != nil {
		return fmt.Errorf("sync the archive's folders: %w", err)
	}
	return nil
}

func (s *folderStore) look(_ context.Context, key string) (k kept, err error) {
	err = s.folder.in(func(root *os.Root) error {
		info, a, err := stat(root, s.prefix+key)
		if absent(err) {
			return errNone
		}
		if err != nil {
			return err
		}
		k = kept{size: info.Size(), mark: a.Metadata[metaSource], sha256: fromHex(a.Metadata[metaSHA256])}
		return nil
	})
	return k, err
}

func (s *folderStore) create(_ context.Context, key string, content []byte) error {
	err := s.folder.write(s.prefix+sessionOf(key), s.prefix+key, true, func(f io.Writer) (attributes, error) {
		_, err := f.Write(content)
		return attributes{}, err
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
		_ = s.folder.in(func(root *os.Root) error {
			return root.RemoveAll(filepath.Join(filepath.FromSlash(s.prefix+folder), parts))
		})
	}
}
