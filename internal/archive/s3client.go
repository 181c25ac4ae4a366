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

// careful opens a bucket in a store that speaks S3's protocol anew, with a client that
// takes nothing for granted.
func careful(ctx context.Context, bucket *blob.Bucket, l location) (*blob.Bucket, error) {
	var client *s3.Client
	if !bucket.As(&client) {
		return nil, errors.New("the bucket has no client for S3")
	}
	defer bucket.Close()
	options := client.Options()
	return s3blob.OpenBucket(ctx, s3.New(options, watchListings, signPortably, logPlainly), l.bucket, &s3blob.Options{
		EncryptionType: types.ServerSideEncryption(l.query.Get("ssetype")), KMSEncryptionID: l.query.Get("kmskeyid"),
		RequestChecksumCalculation: options.RequestChecksumCalculation,
	})
}

// logPlainly has the SDK write its warnings as lines of our log. By itself it writes
// lines of its own format to stderr.
func logPlainly(o *s3.Options) {
	o.Logger = logging.LoggerFunc(func(class logging.Classification, format string, args ...any) {
		if class == logging.Warn {
			slog.Warn("store client warns", "library", "aws", "message", fmt.Sprintf(format, args...))
		}
	})
}

// watchListings makes an error of a page that says that there is another, and not
// where, which the library for buckets takes for the last one; and of one that was
// there before, for which it asks again and again.
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

// signPortably leaves Accept-Encoding out of what is signed. Google's front end
// rewrites it, which makes every signature that covers it a wrong one; no store wants
// it signed.
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
		if _, ok := stack.Finalize.Get("Signing"); !ok { // what isn't signed
			return nil
		}
		if err := stack.Finalize.Insert(hide, "Signing", middleware.Before); err != nil {
			return err
		}
		return stack.Finalize.Insert(show, "Signing", middleware.After)
	})
}
