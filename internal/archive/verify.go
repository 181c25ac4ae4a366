package archive

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"strings"
	"sync"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// Fault is an object that differs from its manifest.
type Fault struct {
	Name string `json:"name"` // key of the object or the manifest
	What string `json:"what"` // the problem
}

// Verify reads all objects in a manifest concurrently and compares size and SHA-256. moved, if not
// nil, is called concurrently with the number of bytes read. The error is that of ctx.
func (m *Mover) Verify(ctx context.Context, manifest Manifest, moved func(int64)) ([]Fault, error) {
	whats := make([]string, len(manifest.Files))
	var done sync.WaitGroup
	for i, f := range manifest.Files {
		if m.turn.Acquire(ctx, 1) != nil {
			break
		}
		done.Go(func() {
			defer m.turn.Release(1)
			whats[i] = m.fault(ctx, f, moved)
		})
	}
	done.Wait()
	var faults []Fault
	for i, what := range whats {
		if what != "" {
			faults = append(faults, Fault{manifest.Files[i].Name, what})
		}
	}
	return faults, context.Cause(ctx)
}

func (m *Mover) fault(ctx context.Context, f File, moved func(int64)) string {
	a, err := m.Archive.Attributes(ctx, f.Name)
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound:
		return "it is missing"
	case err != nil:
		return text(fmt.Sprintf("can't be looked at: %v", err))
	case a.Size != f.Size:
		return fmt.Sprintf("it has %d bytes, and had %d", a.Size, f.Size)
	}
	sums := &sums{sha256: sha256.New()}
	switch err := m.sum(ctx, &object{m.Archive, f.Name}, sums, moved); {
	case err != nil:
		return text(fmt.Sprintf("can't be read: %v", err))
	case sums.hex() != f.SHA256:
		return fmt.Sprintf("its SHA-256 is %s, and was %s", sums.hex(), f.SHA256)
	}
	return ""
}

// Apps lists the folders of apps in the archive.
func Apps(ctx context.Context, bucket *blob.Bucket) iter.Seq2[string, error] {
	return folders(ctx, bucket, "")
}

// Sessions lists the folders of sessions in the archive, with or without a manifest.
func Sessions(ctx context.Context, bucket *blob.Bucket) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for app, err := range Apps(ctx, bucket) {
			if err != nil {
				yield("", err)
				return
			}
			for session, err := range folders(ctx, bucket, app) {
				if !yield(session, err) || err != nil {
					return
				}
			}
		}
	}
}

// folders lists the subfolders of a prefix with numeric names.
func folders(ctx context.Context, bucket *blob.Bucket, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for o, err := range List(ctx, bucket, prefix, true) {
			if err != nil {
				yield("", fmt.Errorf("list the archive: %w", err))
				return
			}
			if o.IsDir && number(strings.TrimSuffix(strings.TrimPrefix(o.Key, prefix), "/")) && !yield(o.Key, nil) {
				return
			}
		}
	}
}
