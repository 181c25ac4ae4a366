package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gocloud.dev/blob/driver"
)

// ListPaged implements [driver.Bucket]. An unreadable folder is an error, and so is a link to a
// folder or out of the bucket. With a delimiter it does not open folders.
func (b *folderBucket) ListPaged(ctx context.Context, o *driver.ListOptions) (*driver.ListPage, error) {
	if o.Delimiter != "" && o.Delimiter != "/" {
		return nil, errUnsupported
	}
	l := &listing{ListOptions: o, after: string(o.PageToken), size: cmp.Or(o.PageSize, 1000), page: &driver.ListPage{}}
	top := o.Prefix[:strings.LastIndexByte(o.Prefix, '/')+1]
	err := b.in(func(root *os.Root) error { return l.walk(ctx, root, top) })
	if err != nil && !errors.Is(err, errFull) {
		return nil, err
	}
	return l.page, nil
}

// errFull ends a listing at the end of a page.
var errFull = errors.New("the page is full")

// listing collects a page.
type listing struct {
	*driver.ListOptions
	after string
	size  int
	page  *driver.ListPage
}

// walk lists a folder in key order.
func (l *listing) walk(ctx context.Context, root *os.Root, dir string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	name := "."
	if dir != "" {
		var err error
		if name, err = local(strings.TrimSuffix(dir, "/")); err != nil {
			return err
		}
	}
	f, err := root.Open(name)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	_ = f.Close()
	if absent(err) { // it was a file
		return nil
	}
	if err != nil {
		return err
	}
	key := func(e fs.DirEntry) string {
		if e.IsDir() {
			return dir + e.Name() + "/"
		}
		return dir + e.Name()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(key(a), key(b)) })
	for _, e := range entries {
		if err := l.entry(ctx, root, e, key(e)); err != nil {
			return err
		}
	}
	return nil
}

func (l *listing) entry(ctx context.Context, root *os.Root, e fs.DirEntry, key string) error {
	if e.IsDir() {
		switch inside, outside := strings.HasPrefix(key, l.Prefix), !strings.HasPrefix(l.Prefix, key); {
		case !inside && outside, e.Name() == parts, key == "lost+found/": // which a file system makes for itself, unreadable
			return nil
		case inside && l.Delimiter != "":
			if key <= l.after {
				return nil
			}
			return l.add(&driver.ListObject{Key: key, IsDir: true})
		case key <= l.after && !strings.HasPrefix(l.after, key): // on an earlier page
			return nil
		}
		return l.walk(ctx, root, key)
	}
	if !strings.HasPrefix(key, l.Prefix) || key <= l.after || strings.HasSuffix(key, sidecarSuffix) {
		return nil
	}
	info, err := e.Info()
	if err == nil && e.Type()&fs.ModeSymlink != 0 {
		if info, err = root.Stat(filepath.FromSlash(key)); err == nil && info.IsDir() {
			err = errors.New("it leads to a folder")
		}
		if err != nil {
			return fmt.Errorf("%s is a symbolic link, want files and folders themselves: %w", key, errors.New(err.Error()))
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist): // deleted meanwhile
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return nil
	}
	return l.add(&driver.ListObject{Key: key, ModTime: info.ModTime(), Size: info.Size()})
}

func (l *listing) add(o *driver.ListObject) error {
	if n := len(l.page.Objects); n == l.size {
		l.page.NextPageToken = []byte(l.page.Objects[n-1].Key)
		return errFull
	}
	o.AsFunc = func(any) bool { return false }
	l.page.Objects = append(l.page.Objects, o)
	return nil
}
