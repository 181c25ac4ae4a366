package archive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash/crc64"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// s3Store is an archive in an S3-compatible store. It has its own upload code, because the SDK's
// transfermanager sends checksums only as trailers of aws-chunked bodies, which Alibaba and
// Huawei refuse.
//
// Stores differ in their support of optional features. s3Store uses a feature until the store
// refuses it and succeeds without it, and remembers that for the bucket.
type s3Store struct {
	*anyStore
	client         *s3.Client
	bucket, prefix string
	query          url.Values
	source         *s3Source
	buffers        sync.Pool // of *[]byte, partSize large

	noChecksums, noCopies, noConditions atomic.Bool
}

// s3Source is the recordings bucket if the archive's store can read it.
type s3Source struct{ bucket, prefix string }

func newS3Store(common *anyStore, client *s3.Client, l location, sourceURL string) *s3Store {
	s := &s3Store{anyStore: common, bucket: l.bucket, prefix: l.prefix, query: l.query}
	// Switch the SDK's own checksums off, because they are trailers.
	s.client = s3.New(client.Options(), func(o *s3.Options) { o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired })
	s.source = s.sameStore(sourceURL)
	s.buffers.New = func() any { b := make([]byte, partSize); return &b }
	// AWS_REQUEST_CHECKSUM_CALCULATION and its like.
	s.noChecksums.Store(client.Options().RequestChecksumCalculation == aws.RequestChecksumCalculationWhenRequired)
	return s
}

// sameStore returns the bucket of a URL if it is in the same store with the same credentials, that
// is, with the same options except those of a bucket.
func (s *s3Store) sameStore(sourceURL string) *s3Source {
	l, err := parseLocation(sourceURL)
	if err != nil || l.scheme != "s3" {
		return nil
	}
	ours, theirs := maps.Clone(s.query), l.query
	for _, own := range []string{"prefix", "ssetype", "kmskeyid"} {
		ours.Del(own)
		theirs.Del(own)
	}
	if ours.Encode() != theirs.Encode() {
		return nil
	}
	return &s3Source{l.bucket, l.prefix}
}

// refused reports whether the store rejected a request as unsupported or forbidden. Failures of
// the store and errors about an object do not count.
func refused(err error) bool {
	if errors.As(err, new(sourceError)) {
		return false
	}
	switch code := status(err); code {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusPreconditionFailed, http.StatusTooManyRequests:
		return false
	case http.StatusNotImplemented:
		return true
	default:
		var api smithy.APIError
		return code >= 400 && code < 500 && !(errors.As(err, &api) && api.ErrorCode() == "BadDigest")
	}
}

// status returns the HTTP status of an error response, or 0.
func status(err error) int {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}

// optional sends a request with an optional feature, and again without it if the store refuses. It
// sets lacking if only the second succeeds.
func optional(lacking *atomic.Bool, send func(with bool) error) error {
	if lacking.Load() {
		return send(false)
	}
	err := send(true)
	if !refused(err) {
		return err
	}
	if err = send(false); err == nil || status(err) == http.StatusNotFound {
		lacking.Store(true)
	}
	return err
}

func (s *s3Store) key(key string) *string { return aws.String(s.prefix + key) }

func (s *s3Store) sums() *sums { return &sums{sha256: sha256.New(), crc64: crc64.New(nvme)} }

// encryption returns the kind of encryption and the name of its key.
func (s *s3Store) encryption() (kind types.ServerSideEncryption, key *string) {
	if s.options.Encryption == "" {
		return types.ServerSideEncryption(s.query.Get("ssetype")), some(s.query.Get("kmskeyid"))
	}
	k, name, _ := strings.Cut(s.options.Encryption, "=")
	return types.ServerSideEncryption(k), some(name)
}

// tags returns the tags as a URL's query.
func (s *s3Store) tags() *string {
	tags := url.Values{}
	for k, v := range s.options.Tags {
		tags.Set(k, v)
	}
	return some(tags.Encode())
}

// some returns nil for an empty text.
func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func toBase64(sum []byte) *string { return aws.String(base64.StdEncoding.EncodeToString(sum)) }

func fromBase64(s *string) []byte {
	b, err := base64.StdEncoding.DecodeString(aws.ToString(s))
	if err != nil || len(b) == 0 {
		return nil
	}
	return b
}

func (s *s3Store) put(ctx context.Context, key string, c *content) error {
	var refusal error
	if from := s.inside(c); from != "" && c.state.size > int64(partSize) && !s.noCopies.Load() {
		refusal = optional(&s.noChecksums, func(sums bool) error { return s.copyInside(ctx, key, c, from, sums) })
		if refusal == nil { // the source is read only for its checksum
			buffer := s.buffers.Get().(*[]byte)
			defer s.buffers.Put(buffer)
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c.reader}, *buffer)
			return err
		}
		if !refused(refusal) {
			return refusal
		}
	}
	err := optional(&s.noChecksums, func(sums bool) error {
		c.reader.rewind()
		return s.upload(ctx, key, c, sums)
	})
	if err == nil && refusal != nil && status(refusal) != http.StatusForbidden { // which may concern this object
		s.noCopies.Store(true)
	}
	return err
}

func (s *s3Store) look(ctx context.Context, key string) (k kept, err error) {
	var out *s3.HeadObjectOutput
	err = optional(&s.noChecksums, func(sums bool) (err error) {
		in := &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.key(key)}
		if sums {
			in.ChecksumMode = types.ChecksumModeEnabled
		}
		out, err = s.client.HeadObject(ctx, in)
		return err
	})
	if status(err) == http.StatusNotFound {
		return kept{}, errNone
	}
	if err != nil {
		return kept{}, err
	}
	k = kept{size: aws.ToInt64(out.ContentLength), mark: out.Metadata[metaSource], own: true}
	if out.ChecksumType != types.ChecksumTypeComposite {
		k.sha256, k.crc64 = fromBase64(out.ChecksumSHA256), fromBase64(out.ChecksumCRC64NVME)
	}
	if k.sha256 == nil && k.crc64 == nil {
		k.sha256, k.own = fromHex(out.Metadata[metaSHA256]), false
	}
	return k, nil
}

func (s *s3Store) create(ctx context.Context, key string, content []byte) error {
	kind, kms := s.encryption()
	sum := sha256.Sum256(content)
	err := optional(&s.noConditions, func(conditions bool) error {
		if !conditions {
			if _, err := s.look(ctx, key); !errors.Is(err, errNone) {
				return cmp.Or(err, errExists)
			}
		}
		return optional(&s.noChecksums, func(sums bool) error {
			in := &s3.PutObjectInput{
				Bucket: &s.bucket, Key: s.key(key), Body: bytes.NewReader(content), ContentType: aws.String("application/json"),
				Tagging: s.tags(), ServerSideEncryption: kind, SSEKMSKeyId: kms,
			}
			if conditions {
				in.IfNoneMatch = aws.String("*")
			}
			if sums {
				in.ChecksumSHA256 = toBase64(sum[:])
			}
			_, err := s.client.PutObject(ctx, in)
			return err
		})
	})
	if status(err) == http.StatusPreconditionFailed {
		return errExists
	}
	return err
}

func (s *s3Store) tidy(ctx context.Context, folder string) {
	pages := s3.NewListMultipartUploadsPaginator(s.client, &s3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: s.key(folder)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return
		}
		for _, u := range page.Uploads {
			_, _ = s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: u.Key, UploadId: u.UploadId})
		}
	}
}
