package archive

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"

	"github.com/aws/smithy-go"
	"github.com/google/uuid"
	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
)

// ErrLeft means that a probe could not be removed.
var ErrLeft = errors.New("can't be deleted")

// Probe archives a small recording with its manifest in its own folder, as the step does, reads
// both back and removes them. recordings, if not nil, must not contain them. The error wraps
// [ErrLeft] if only the removal failed.
func Probe(ctx context.Context, recordings, bucket *blob.Bucket, options Options) error {
	source := memblob.OpenBucket(nil)
	defer source.Close()
	options.SourceURL, options.DeleteSources = "", false
	m, err := NewMover(source, bucket, options)
	if err != nil {
		return err
	}
	top := "closeout-doctor-" + uuid.NewString() // not an app's folder
	folder, item := top+"/probe/", Item{Key: "probe.txt"}
	if err := source.WriteAll(ctx, item.Key, []byte("may be deleted\n"), nil); err != nil {
		return err
	}
	manifest, err := m.Move(ctx, folder, Manifest{}, func(context.Context) ([]Item, error) { return []Item{item}, nil }, Progress{}, nil)
	if err == nil {
		var faults []Fault
		if faults, err = m.Verify(ctx, manifest, nil); err == nil && len(faults) > 0 {
			err = fmt.Errorf("what was written to %s and read back differs: %s", faults[0].Name, faults[0].What)
		}
	}
	if err == nil && recordings != nil {
		if there, _ := recordings.Exists(ctx, manifest.Key(folder)); there {
			err = errors.New("what is written to the archive shows in the bucket of the recordings: they are in the same place, want two")
		}
	}
	if left := m.remove(ctx, top, manifest.Key(folder), path.Join(folder, "recordings", item.Key)); left != nil && err == nil {
		err = left
	}
	return err
}

// remove removes the objects of a probe.
func (m *Mover) remove(ctx context.Context, top string, keys ...string) error {
	for _, key := range keys {
		if err := missing(m.Archive.Delete(ctx, key)); err != nil {
			return fmt.Errorf("%s %w: %w", key, ErrLeft, err)
		}
	}
	if s, ok := m.store.(*folderStore); ok {
		return s.folder.in(func(root *os.Root) error { return root.RemoveAll(filepath.FromSlash(s.prefix + top)) })
	}
	return nil
}

// Advice returns what to do about an error of the bucket in the given setting.
func Advice(setting string, err error) string {
	var api smithy.APIError
	code := ""
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	switch {
	case code == "PathStyleDomainForbidden", code == "SecondLevelDomainForbidden":
		return "remove use_path_style=true from " + setting
	case code != "" && status(err) != http.StatusForbidden && status(err) != http.StatusNotFound && status(err) < 500:
		return "the store refuses the request with " + code + ", which no permission changes: compare " + setting + " with the URL of the store in docs/buckets.md"
	}
	return "see that the bucket is there and that the worker may read and write it; " + setting + " says where it is"
}
