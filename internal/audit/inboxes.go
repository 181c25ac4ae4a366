package audit

import (
	"context"
	"errors"
	"iter"

	"github.com/closeouthq/closeout/internal/inbox"
)

// Inboxes is a list of inboxes.
type Inboxes []*inbox.Store

// OpenInboxes opens the inboxes in the folders. The error wraps [os.ErrNotExist] if a folder
// has no inbox.
func OpenInboxes(ctx context.Context, folders []string) (Inboxes, error) {
	var opened Inboxes
	for _, folder := range folders {
		store, err := inbox.Attach(ctx, folder)
		if err != nil {
			return nil, errors.Join(err, opened.Close())
		}
		opened = append(opened, store)
	}
	return opened, nil
}

// Close closes the inboxes.
func (i Inboxes) Close() error {
	var faults []error
	for _, store := range i {
		faults = append(faults, store.Close())
	}
	return errors.Join(faults...)
}

// All lists the entries of all inboxes.
func (i Inboxes) All(ctx context.Context) iter.Seq2[inbox.Entry, error] {
	return func(yield func(inbox.Entry, error) bool) {
		for _, store := range i {
			for e, err := range store.All(ctx) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}
