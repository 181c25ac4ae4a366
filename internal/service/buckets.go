package service

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/closeouthq/closeout/internal/archive"
)

// makeBucket creates the bucket of an s3:// URL if it does not exist, and reports whether it did.
// It does nothing for other URLs. It uses the URL's options, as the steps do.
func makeBucket(ctx context.Context, setting, bucketURL string) (made bool, err error) {
	store, bucket, err := archive.OpenS3(ctx, bucketURL)
	if err != nil {
		return false, permanent(fmt.Errorf("%s: open the bucket: %w", setting, err))
	}
	if store == nil {
		return false, nil
	}
	_, err = store.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
	if missing := new(types.NotFound); !errors.As(err, &missing) {
		if err != nil {
			err = fmt.Errorf("%s: look for bucket %s: %w", setting, bucket, final(err))
		}
		return false, err
	}
	create := &s3.CreateBucketInput{Bucket: &bucket}
	// us-east-1 is the only region that must not be named.
	// https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
	if region := store.Options().Region; region != "us-east-1" {
		create.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(region)}
	}
	_, err = store.CreateBucket(ctx, create)
	if ours := new(types.BucketAlreadyOwnedByYou); errors.As(err, &ours) { // another setup was faster
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: make bucket %s: %w", setting, bucket, final(err))
	}
	return true, nil
}

// final makes a store's error permanent if a retry is useless, and adds advice.
func final(err error) error {
	answer := new(smithyhttp.ResponseError)
	if !errors.As(err, &answer) {
		return err
	}
	advice := "see that the URL names the right store and that its options fit"
	switch status := answer.HTTPStatusCode(); {
	case status >= 500, slices.Contains([]int{http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests}, status):
		return err
	case status >= 300 && status < 400:
		advice = "the bucket is elsewhere: the URL's region and endpoint have to be the bucket's"
		if region := answer.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
			advice = "the bucket is in another region: set region=" + region + " in the URL"
		}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		advice = "see that the credentials are right and may look for and make the bucket, or make it yourself and unset CLOSEOUT_MAKE_BUCKETS"
	case status == http.StatusConflict:
		if busy := new(smithy.GenericAPIError); errors.As(err, &busy) && busy.Code == "OperationAborted" {
			return err // another setup makes it
		}
		advice = "another account has a bucket of this name: choose another name"
	}
	return permanent(fmt.Errorf("%w; %s", err, advice))
}
