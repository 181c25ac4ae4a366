// Package storage has the names of Google Cloud Storage's client that Temporal's archival uses. There is no client.
package storage

import (
	"context"
	"errors"

	"google.golang.org/api/option"
)

// ScopeFullControl is a scope of credentials.
const ScopeFullControl = ""

var errNone = errors.New("this Temporal server, of Closeout's dev, doesn't archive to Google Cloud Storage")

type (
	Client       struct{}
	BucketHandle struct{}
	ObjectHandle struct{}
	Writer       struct{}
	Reader       struct{}

	ObjectIterator struct{}
	BucketAttrs    struct{}
	ObjectAttrs    struct{ Name string }
	Query          struct{ Prefix string }
)

func NewClient(context.Context, ...option.ClientOption) (*Client, error) { return nil, errNone }

func (*Client) Bucket(string) *BucketHandle                           { return nil }
func (*BucketHandle) Object(string) *ObjectHandle                     { return nil }
func (*BucketHandle) Objects(context.Context, *Query) *ObjectIterator { return nil }
func (*BucketHandle) Attrs(context.Context) (*BucketAttrs, error)     { return nil, errNone }
func (*ObjectHandle) NewWriter(context.Context) *Writer               { return nil }
func (*ObjectHandle) NewReader(context.Context) (*Reader, error)      { return nil, errNone }
func (*ObjectHandle) Attrs(context.Context) (*ObjectAttrs, error)     { return nil, errNone }
func (*Writer) Write([]byte) (int, error)                             { return 0, errNone }
func (*Writer) Close() error                                          { return errNone }
func (*Writer) CloseWithError(error) error                            { return errNone }
func (*Reader) Read([]byte) (int, error)                              { return 0, errNone }
func (*Reader) Close() error                                          { return errNone }
func (*ObjectIterator) Next() (*ObjectAttrs, error)                   { return nil, errNone }
