package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/cenkalti/backoff/v5"

	"github.com/closeouthq/closeout/internal/archive"
)

// makeBucket makes the bucket of an s3:// URL if it isn't there, and says whether
// it did. Of other URLs it makes nothing. It talks to the store as the steps will:
// by the URL's options.
func makeBucket(ctx context.Context, setting, bucketURL string) (made bool, err error) {
	store, bucket, err := archive.OpenS3(ctx, bucketURL)
	if err != nil {
		return false, backoff.Permanent(fmt.Errorf("%s: open the bucket: %w", setting, err))
	}
	if store == nil {
		return false, nil
	}
	_, err = store.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
	if missing := new(types.NotFound); !errors.As(err, &missing) {
		if err != nil {
			err = fmt.Errorf("%s: look for bucket %s: %w", setting, bucket, err)
		}
		return false, err
	}
	create := &s3.CreateBucketInput{Bucket: &bucket}
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
		return false, fmt.Errorf("%s: make bucket %s: %w", setting, bucket, err)
	}
	return true, nil
}
