// Package attendance hands a session's participants, and the lines of its bill, to the
// steps of a worker, whose contexts carry the ledger.
package attendance

import (
	"context"
	"iter"

	"github.com/closeouthq/closeout/pricing"
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

// A LineReader reads the lines of a session's bill, or of its adjustment of that number.
type LineReader func(ctx context.Context, s session.Session, adjustment int) iter.Seq2[pricing.Line, error]

type lineKey struct{}

// WithLines returns a context from which [LinesFrom] returns read.
func WithLines(ctx context.Context, read LineReader) context.Context {
	return context.WithValue(ctx, lineKey{}, read)
}

// LinesFrom returns the context's LineReader; nil if it has none.
func LinesFrom(ctx context.Context) LineReader {
	read, _ := ctx.Value(lineKey{}).(LineReader)
	return read
}
