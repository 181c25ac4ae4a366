package service

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/cenkalti/backoff/v5"
	"gocloud.dev/blob"
)

// makeBucket makes the bucket of an s3:// URL if it isn't there, and says whether
// it did. Of other URLs it makes nothing. It talks to the store as the steps will:
// by the URL's options.
func makeBucket(ctx context.Context, setting, bucketURL string) (made bool, err error) {
	u, err := url.Parse(bucketURL)
	if err != nil || u.Scheme != "s3" {
		return false, nil // Load has checked it
	}
	bucket, err := blob.OpenBucket(ctx, bucketURL)
	if err != nil {
		return false, backoff.Permanent(fmt.Errorf("%s: open the bucket: %w", setting, err))
	}
	defer bucket.Close()
	var store *s3.Client
	if !bucket.As(&store) {
		return false, backoff.Permanent(fmt.Errorf("%s: its bucket has no client for S3", setting))
	}

	_, err = store.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &u.Host})
	if missing := new(types.NotFound); !errors.As(err, &missing) {
		if err != nil {
			err = fmt.Errorf("%s: look for bucket %s: %w", setting, u.Host, err)
		}
		return false, err
	}
	create := &s3.CreateBucketInput{Bucket: &u.Host}
	// Of all regions, us-east-1 alone may not be named.
	// https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
	if region := store.Options().Region; region != "us-east-1" {
		create.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(region)}
	}
	_, err = store.CreateBucket(ctx, create)
	if ours := new(types.BucketAlreadyOwnedByYou); errors.As(err, &ours) { // another setup was faster
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: make bucket %s: %w", setting, u.Host, err)
	}
	return true, nil
}
