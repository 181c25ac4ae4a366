package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/internal/progress"
)

// maxFaults bounds how many errors of [forEach] are shown.
const maxFaults = 20

// forEach calls f for each item, some at a time, and shows its progress. It returns how many calls succeeded, and the
// first errors.
func forEach[T any](ctx context.Context, op *operation, what string, items []T, name func(T) string, f func(context.Context, T) error) (int64, error) {
	var done, failed atomic.Int64
	bar := progress.Bar{Total: progress.Of(int64(len(items))), What: what, Done: done.Load, State: func() string { return fmt.Sprintf("%d failed", failed.Load()) }}
	stop := bar.Start(op.Root().ErrWriter)
	var mu sync.Mutex
	var faults []error
	var group errgroup.Group
	group.SetLimit(parallelRuns)
	for _, item := range items {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			err := f(ctx, item)
			done.Add(1)
			if err == nil {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if failed.Add(1) <= maxFaults {
				faults = append(faults, fmt.Errorf("%s: %w", name(item), err))
			}
			return nil
		})
	}
	_ = group.Wait()
	stop()
	if more := failed.Load() - int64(len(faults)); more > 0 {
		faults = append(faults, fmt.Errorf("and %d more", more))
	}
	if left := int64(len(items)) - done.Load(); left > 0 {
		faults = append(faults, fmt.Errorf("stopped with %d of %d %s to go: %w", left, len(items), what, ctx.Err()))
	}
	return done.Load() - failed.Load(), errors.Join(faults...)
}
