// Package attendance hands a session's participants to the steps of a worker, whose
// contexts carry the ledger.
package attendance

import (
	"context"

	"github.com/closeouthq/closeout/session"
)

// A Reader reads the participants of a session as its bill has them, or an adjustment of
// that number.
type Reader func(ctx context.Context, s session.Session, adjustment int) (*session.Participants, error)

type key struct{}

// With returns a context from which [From] returns read.
func With(ctx context.Context, read Reader) context.Context {
	return context.WithValue(ctx, key{}, read)
}

// From returns the context's Reader; nil if it has none.
func From(ctx context.Context) Reader {
	read, _ := ctx.Value(key{}).(Reader)
	return read
}
