package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"
)

// s3Options are additional options of all clients, for tests.
var s3Options []func(*s3.Options)

// openS3 reopens an S3-compatible bucket with a client that works for all such stores.
func openS3(ctx context.Context, bucket *blob.Bucket, l location) (*blob.Bucket, error) {
	var client *s3.Client
	if !bucket.As(&client) {
		return nil, errors.New("the bucket has no client for S3")
	}
	defer bucket.Close()
	plainly := func(o *s3.Options) {
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.RetryMaxAttempts = maxAttempts
	}
	client = s3.New(client.Options(), append([]func(*s3.Options){plainly, watchListings, signPortably, logPlainly}, s3Options...)...)
	return s3blob.OpenBucket(ctx, client, l.bucket, &s3blob.Options{
		EncryptionType: types.ServerSideEncryption(l.query.Get("ssetype")), KMSEncryptionID: l.query.Get("kmskeyid"),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
	})
}

// maxAttempts bounds the attempts of a request. Pauses between them grow to 20 s.
const maxAttempts = 6

// logPlainly redirects the SDK's warnings to our log. By default the SDK writes them to stderr in
// its own format.
func logPlainly(o *s3.Options) {
	o.Logger = logging.LoggerFunc(func(class logging.Classification, format string, args ...any) {
		if class == logging.Warn {
			slog.Warn("store client warns", "library", "aws", "message", fmt.Sprintf(format, args...))
		}
	})
}

// watchListings returns an error for a truncated page without a token, which gocloud treats as the
// last one, and for a repeated page, which gocloud requests in an endless loop.
func watchListings(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("WatchListings",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				out, metadata, err := next.HandleInitialize(ctx, in)
				page, ok := out.Result.(*s3.ListObjectsV2Output)
				if !ok || err != nil {
					return out, metadata, err
				}
				if aws.ToBool(page.IsTruncated) && aws.ToString(page.NextContinuationToken) == "" {
					return out, metadata, fmt.Errorf("%w: it says that there is more, and not where", errListing)
				}
				first := ""
				switch {
				case len(page.Contents) > 0:
					first = aws.ToString(page.Contents[0].Key)
				case len(page.CommonPrefixes) > 0:
					first = aws.ToString(page.CommonPrefixes[0].Prefix)
				}
				return out, metadata, pagesOf(ctx).add(first)
			}), middleware.Before)
	})
}

// signPortably leaves Accept-Encoding out of the signature, because Google's front end rewrites
// the header before it checks the signature. No store requires it.
func signPortably(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		type key struct{}
		const name = "Accept-Encoding"
		hide := middleware.FinalizeMiddlewareFunc("HideAcceptEncoding", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if req, ok := in.Request.(*smithyhttp.Request); ok {
				ctx = middleware.WithStackValue(ctx, key{}, req.Header.Get(name))
				req.Header.Del(name)
			}
			return next.HandleFinalize(ctx, in)
		})
		show := middleware.FinalizeMiddlewareFunc("ShowAcceptEncoding", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if req, ok := in.Request.(*smithyhttp.Request); ok {
				if value, _ := middleware.GetStackValue(ctx, key{}).(string); value != "" {
					req.Header.Set(name, value)
				}
			}
			return next.HandleFinalize(ctx, in)
		})
		if _, ok := stack.Finalize.Get("Signing"); !ok { // unsigned requests
			return nil
		}
		if err := stack.Finalize.Insert(hide, "Signing", middleware.Before); err != nil {
			return err
		}
		return stack.Finalize.Insert(show, "Signing", middleware.After)
	})
}
