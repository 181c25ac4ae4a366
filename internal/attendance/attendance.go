// Package attendance gives steps access to a session's participants and bill lines, through
// the context in which a worker runs them.
package attendance

import (
	"context"
	"iter"

	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// A Reader reads the participants of a session with the figures of its bill, or of the
// adjustment with that number if it isn't 0.
type Reader func(ctx context.Context, s session.Session, adjustment int) (*session.Participants, error)

type key struct{}

// With returns a context from which [From] returns read.
func With(ctx context.Context, read Reader) context.Context {
	return context.WithValue(ctx, key{}, read)
}

// From returns the context's Reader, or nil.
func From(ctx context.Context) Reader {
	read, _ := ctx.Value(key{}).(Reader)
	return read
}

// A LineReader reads the lines of a session's bill, or of the adjustment with that number if
// it isn't 0.
type LineReader func(ctx context.Context, s session.Session, adjustment int) iter.Seq2[pricing.Line, error]

type lineKey struct{}

// WithLines returns a context from which [LinesFrom] returns read.
func WithLines(ctx context.Context, read LineReader) context.Context {
	return context.WithValue(ctx, lineKey{}, read)
}

// LinesFrom returns the context's LineReader, or nil.
func LinesFrom(ctx context.Context) LineReader {
	read, _ := ctx.Value(lineKey{}).(LineReader)
	return read
}
