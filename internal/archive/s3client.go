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

// s3Options are more options of all clients. Tests set them.
var s3Options []func(*s3.Options)

// openS3 reopens a bucket in a store that speaks S3's protocol, with a client for all
// such stores.
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

// maxAttempts is the number of attempts of a request, with pauses of up to 20 s between.
const maxAttempts = 6

// logPlainly writes the SDK's warnings as lines of our log. By itself the SDK writes
// lines of its own format to stderr.
func logPlainly(o *s3.Options) {
	o.Logger = logging.LoggerFunc(func(class logging.Classification, format string, args ...any) {
		if class == logging.Warn {
			slog.Warn("store client warns", "library", "aws", "message", fmt.Sprintf(format, args...))
		}
	})
}

// watchListings returns an error for a page that announces another without saying
// where, which gocloud takes for the last one, and for a page that was there before,
// which gocloud asks for again and again.
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

// signPortably leaves Accept-Encoding out of the signature. Google's front end rewrites
// it before the signature is checked; no store wants it signed.
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
