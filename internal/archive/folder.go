package archive

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/uuid"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// folderBucket is a bucket in a folder. Unlike gocloud's, it follows no link out of the folder,
// and reports unreadable files as errors.
type folderBucket struct {
	dir    string
	opened os.FileInfo // the folder at the time of opening
}

const (
	parts         = ".closeout-parts" // the folder of unfinished files, in a session's folder or the bucket's
	sidecarSuffix = ".attrs"          // suffix of the file with a file's metadata

	// Files are private to the user of the process.
	fileMode   = 0o600
	folderMode = 0o700
)

var errUnsupported = errors.New("a folder can't do that")

func openFolder(l location) (*folderBucket, error) {
	dir, err := filepath.Abs(l.bucket)
	if err != nil {
		return nil, err
	}
	if l.query.Get("create_dir") != "" {
		if err := os.MkdirAll(dir, folderMode); err != nil {
			return nil, err
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder", dir)
	}
	return &folderBucket{dir, info}, nil
}

// root opens the folder. Its errors do not match fs.ErrNotExist, because a missing folder says
// nothing about an object.
func (b *folderBucket) root() (*os.Root, error) {
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return nil, fmt.Errorf("open the bucket's folder: %s", err.Error()) //nolint:errorlint // no object is missing
	}
	info, err := root.Stat(".")
	switch {
	case err != nil:
		err = fmt.Errorf("look at the bucket's folder: %s", err.Error()) //nolint:errorlint // as above
	case !os.SameFile(info, b.opened):
		err = fmt.Errorf("%s isn't the folder that was there at the start: mount its volume, or restart if this is the right one", b.dir)
	default:
		return root, nil
	}
	_ = root.Close()
	return nil, err
}

// in calls f with the folder.
func (b *folderBucket) in(f func(*os.Root) error) error {
	root, err := b.root()
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// local returns the path of a key in the folder.
func local(key string) (string, error) {
	never := "\x00"
	if filepath.Separator != '/' {
		never += string(filepath.Separator)
	}
	if !filepath.IsLocal(filepath.FromSlash(key)) || path.Clean(key) != key || strings.ContainsAny(key, never) || strings.HasSuffix(key, sidecarSuffix) {
		return "", fmt.Errorf("no file can have the key %q: %w", key, fs.ErrNotExist)
	}
	return filepath.FromSlash(key), nil
}

// absent reports whether err means that there is no such file.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// ErrorCode implements [driver.Bucket].
func (b *folderBucket) ErrorCode(err error) gcerrors.ErrorCode {
	switch {
	case absent(err):
		return gcerrors.NotFound
	case errors.Is(err, fs.ErrExist):
		return gcerrors.FailedPrecondition
	case errors.Is(err, fs.ErrPermission):
		return gcerrors.PermissionDenied
	case errors.Is(err, errUnsupported):
		return gcerrors.Unimplemented
	}
	return gcerrors.Unknown
}

// As implements [driver.Bucket].
func (b *folderBucket) As(any) bool { return false }

// ErrorAs implements [driver.Bucket].
func (b *folderBucket) ErrorAs(error, any) bool { return false }

// Close implements [driver.Bucket].
func (b *folderBucket) Close() error { return nil }

// Copy implements [driver.Bucket].
func (b *folderBucket) Copy(context.Context, string, string, *driver.CopyOptions) error {
	return errUnsupported
}

// SignedURL implements [driver.Bucket].
func (b *folderBucket) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", errUnsupported
}

// attributes is the content of a sidecar.
type attributes struct {
	ContentType string            `json:"content_type"`
	Metadata    map[string]string `json:"metadata,omitempty"`
}

// stat returns a file and its attributes.
func stat(root *os.Root, key string) (os.FileInfo, attributes, error) {
	a := attributes{ContentType: "application/octet-stream"}
	name, err := local(key)
	if err != nil {
		return nil, a, err
	}
	info, err := root.Stat(name)
	if err != nil {
		return nil, a, err
	}
	if !info.Mode().IsRegular() {
		return nil, a, fs.ErrNotExist
	}
	if b, err := root.ReadFile(name + sidecarSuffix); err == nil {
		_ = json.Unmarshal(b, &a) // without attributes the file is read to check it
	}
	return info, a, nil
}

// Attributes implements [driver.Bucket].
func (b *folderBucket) Attributes(_ context.Context, key string) (found *driver.Attributes, err error) {
	return found, b.in(func(root *os.Root) error {
		info, a, err := stat(root, key)
		if err != nil {
			return err
		}
		found = &driver.Attributes{
			ContentType: a.ContentType, Metadata: a.Metadata, ModTime: info.ModTime(), Size: info.Size(),
			ETag: fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()), AsFunc: func(any) bool { return false },
		}
		return nil
	})
}

// fileReader reads a file.
type fileReader struct {
	io.Reader
	io.Closer
	attributes driver.ReaderAttributes
}

// Attributes implements [driver.Reader].
func (r *fileReader) Attributes() *driver.ReaderAttributes { return &r.attributes }

// As implements [driver.Reader].
func (r *fileReader) As(any) bool { return false }

// NewRangeReader implements [driver.Bucket].
func (b *folderBucket) NewRangeReader(_ context.Context, key string, offset, length int64, _ *driver.ReaderOptions) (reader driver.Reader, err error) {
	return reader, b.in(func(root *os.Root) error {
		info, a, err := stat(root, key)
		if err != nil {
			return err
		}
		f, err := root.Open(filepath.FromSlash(key))
		if err != nil {
			return err
		}
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			_ = f.Close()
			return err
		}
		r := &fileReader{f, f, driver.ReaderAttributes{ContentType: a.ContentType, ModTime: info.ModTime(), Size: info.Size()}}
		if length >= 0 {
			r.Reader = io.LimitReader(f, length)
		}
		reader = r
		return nil
	})
}

// Delete implements [driver.Bucket].
func (b *folderBucket) Delete(_ context.Context, key string, _ *driver.DeleteOptions) error {
	return b.in(func(root *os.Root) error {
		name, err := local(key)
		if err != nil {
			return err
		}
		if err := root.Remove(name); err != nil {
			return err
		}
		if err := root.Remove(name + sidecarSuffix); !absent(err) {
			return err
		}
		return nil
	})
}

// fileWriter buffers a small file and writes it on Close. [folderStore] writes recordings.
type fileWriter struct {
	bytes.Buffer
	close func(content io.Reader) error
}

// NewTypedWriter implements [driver.Bucket].
func (b *folderBucket) NewTypedWriter(ctx context.Context, key, contentType string, o *driver.WriterOptions) (driver.Writer, error) {
	return &fileWriter{close: func(content io.Reader) error {
		return b.write("", key, o.IfNotExist, func(f io.Writer) (attributes, error) {
			_, err := io.Copy(f, content)
			return attributes{contentType, o.Metadata}, cmp.Or(err, context.Cause(ctx))
		})
	}}, nil
}

// Close implements [io.Closer].
func (w *fileWriter) Close() error { return w.close(&w.Buffer) }

// write writes a file in the folder of unfinished files, syncs it and renames it to key. If
// exclusive is set and the file exists, it returns [fs.ErrExist].
func (b *folderBucket) write(below, key string, exclusive bool, fill func(io.Writer) (attributes, error)) error {
	return b.in(func(root *os.Root) error {
		name, err := local(key)
		if err != nil {
			return err
		}
		making := filepath.Join(filepath.FromSlash(below), parts)
		var f *os.File
		for again := range 10 {
			for _, folder := range []string{filepath.Dir(name), making} {
				if err := root.MkdirAll(folder, folderMode); err != nil {
					return err
				}
			}
			f, err = root.OpenFile(filepath.Join(making, uuid.NewString()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
			// Another worker may have removed the folder after finishing the session.
			if !errors.Is(err, fs.ErrNotExist) || again == 9 {
				break
			}
		}
		if err != nil {
			return err
		}
		made := filepath.Join(making, filepath.Base(f.Name()))
		defer func() { _ = root.Remove(made) }()
		defer f.Close()
		a, err := fill(f)
		if err != nil {
			return err
		}
		// The files must survive a power failure if their manifest does.
		if err := f.Sync(); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if exclusive {
			return link(root, made, name)
		}
		encoded, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if err := root.WriteFile(name+sidecarSuffix, append(encoded, '\n'), fileMode); err != nil {
			return err
		}
		return root.Rename(made, name)
	})
}

// link renames a file unless the name is taken. Unlike a rename, a link replaces no file.
func link(root *os.Root, from, to string) error {
	err := root.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// The file system does not support links.
	if _, err := root.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(err, fs.ErrExist)
	}
	return root.Rename(from, to)
}

// sync syncs folders and their parents, which makes the names in them durable.
func (b *folderBucket) sync(folders []string) error {
	return b.in(func(root *os.Root) error {
		synced := map[string]bool{}
		for _, folder := range folders {
			for ; !synced[folder]; folder = path.Dir(folder) {
				synced[folder] = true
				f, err := root.Open(filepath.FromSlash(folder))
				if err != nil {
					return err
				}
				err = syncFolder(f)
				_ = f.Close()
				if err != nil && !unsynced(err) {
					return err
				}
			}
		}
		return nil
	})
}

var syncFolder = (*os.File).Sync

// unsynced reports whether the file system cannot sync folders, like SMB and FUSE.
func unsynced(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported)
}
