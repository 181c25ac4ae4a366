package archive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"
)

const (
	// partSize is that of an upload's parts: S3's minimum, as each transfer holds two
	// of them in memory. It grows where 10,000 parts, S3's maximum, would not do.
	partSize = 5 << 20
	mostPart = 10_000
	// requests is how often a request is tried, with a growing pause of up to 20 s.
	requests = 6
)

// copyPart is how much is copied by one request where the store copies by itself.
var copyPart int64 = 512 << 20

// s3Store is a bucket in a store that speaks S3's protocol. Uploads are its own, as
// those of the library for buckets hold five times as much in memory.
type s3Store struct {
	*anyStore
	client         *s3.Client
	bucket, prefix string
	query          url.Values
	source         *s3Source
	buffers        sync.Pool // of *[]byte, partSize large
}

// s3Source is the bucket of the recordings, if the archive's store can read it.
type s3Source struct{ bucket, prefix string }

// sameStore returns the bucket of a URL if it is in the same store, for the same user:
// with the same options but those that are of a bucket.
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

func (s *s3Store) key(key string) *string { return aws.String(s.prefix + key) }

func (s *s3Store) sums() *sums { return &sums{sha256: sha256.New(), crc64: crc64.New(nvme)} }

// checksums says whether the store is to be given checksums, and to keep them.
func (s *s3Store) checksums() bool {
	return s.client.Options().RequestChecksumCalculation != aws.RequestChecksumCalculationWhenRequired
}

func patient(o *s3.Options) { o.RetryMaxAttempts = requests }

// kind is the encryption, and key the name of its key.
func (s *s3Store) encryption() (kind types.ServerSideEncryption, key *string) {
	if s.options.Encryption == "" {
		return types.ServerSideEncryption(s.query.Get("ssetype")), some(s.query.Get("kmskeyid"))
	}
	k, name, _ := strings.Cut(s.options.Encryption, "=")
	return types.ServerSideEncryption(k), some(name)
}

// tags are as in a URL's query.
func (s *s3Store) tags() *string {
	tags := url.Values{}
	for k, v := range s.options.Tags {
		tags.Set(k, v)
	}
	return some(tags.Encode())
}

// some is nil for an empty text.
func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (s *s3Store) put(ctx context.Context, key string, c *content) error {
	if from := s.inside(c); from != "" && c.state.size > partSize {
		err := s.copyInside(ctx, key, c, from)
		if err == nil {
			// What was copied goes by here only to be summed up.
			buffer := s.buffer(partSize)
			defer s.buffers.Put(buffer)
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c.reader}, *buffer)
			return err
		}
		if !declined(err) {
			return err
		}
	}
	return s.upload(ctx, key, c)
}

func (s *s3Store) buffer(size int) *[]byte {
	if size == partSize {
		if b, ok := s.buffers.Get().(*[]byte); ok {
			return b
		}
	}
	b := make([]byte, size)
	return &b
}

func (s *s3Store) upload(ctx context.Context, key string, c *content) error {
	size := partSize
	if least := c.state.size/mostPart + 1; least > partSize {
		size = int(least)
	}
	first := s.buffer(size)
	n, err := io.ReadFull(c.reader, *first)
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // wrapped, they are the source's
		defer s.buffers.Put(first)
		return s.putSmall(ctx, key, c, (*first)[:n])
	}
	if err != nil {
		return err
	}

	id, err := s.begin(ctx, key, c)
	if err != nil {
		return err
	}
	var done []types.CompletedPart
	group, parts := errgroup.WithContext(ctx)
	group.SetLimit(1) // one is sent while the next is read
	send := func(number int32, buffer *[]byte, n int) {
		group.Go(func() error {
			if size == partSize {
				defer s.buffers.Put(buffer)
			}
			in := &s3.UploadPartInput{Bucket: &s.bucket, Key: s.key(key), UploadId: id, PartNumber: &number, Body: bytes.NewReader((*buffer)[:n])}
			if s.checksums() {
				in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc64nvme
			}
			out, err := s.client.UploadPart(parts, in, patient)
			if err != nil {
				return err
			}
			c.alive(0)
			done = append(done, types.CompletedPart{ETag: out.ETag, PartNumber: &number, ChecksumCRC64NVME: out.ChecksumCRC64NVME})
			return nil
		})
	}
	send(1, first, n)
	for number := int32(2); err == nil && parts.Err() == nil; number++ {
		buffer := s.buffer(size)
		if n, err = io.ReadFull(c.reader, *buffer); n > 0 && (err == nil || err == io.ErrUnexpectedEOF) { //nolint:errorlint // as above
			send(number, buffer, n)
		}
	}
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF { //nolint:errorlint // as above
		_ = group.Wait()
		s.abort(ctx, key, id)
		return err
	}
	if err := group.Wait(); err != nil {
		s.abort(ctx, key, id)
		return err
	}
	var whole *string
	if s.checksums() {
		whole = aws.String(base64.StdEncoding.EncodeToString(c.sums.crc64.Sum(nil)))
	}
	return s.complete(ctx, key, id, done, whole)
}

// putSmall puts what one request takes.
func (s *s3Store) putSmall(ctx context.Context, key string, c *content, b []byte) error {
	sum := sha256.Sum256(b)
	c.meta[metaSHA256] = fmt.Sprintf("%x", sum)
	kind, kms := s.encryption()
	in := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: s.key(key), Body: bytes.NewReader(b), ContentLength: aws.Int64(int64(len(b))),
		ContentType: some(c.state.kind), Metadata: c.meta,
		StorageClass: types.StorageClass(s.options.Class), Tagging: s.tags(), ServerSideEncryption: kind, SSEKMSKeyId: kms,
	}
	if s.checksums() {
		in.ChecksumSHA256 = aws.String(base64.StdEncoding.EncodeToString(sum[:]))
	}
	_, err := s.client.PutObject(ctx, in, patient)
	return err
}

// begin begins an upload in parts.
func (s *s3Store) begin(ctx context.Context, key string, c *content) (id *string, err error) {
	kind, kms := s.encryption()
	in := &s3.CreateMultipartUploadInput{
		Bucket: &s.bucket, Key: s.key(key), ContentType: some(c.state.kind), Metadata: c.meta,
		StorageClass: types.StorageClass(s.options.Class), Tagging: s.tags(), ServerSideEncryption: kind, SSEKMSKeyId: kms,
	}
	if s.checksums() {
		in.ChecksumAlgorithm, in.ChecksumType = types.ChecksumAlgorithmCrc64nvme, types.ChecksumTypeFullObject
	}
	out, err := s.client.CreateMultipartUpload(ctx, in, patient)
	if err != nil {
		return nil, err
	}
	return out.UploadId, nil
}

func (s *s3Store) complete(ctx context.Context, key string, id *string, done []types.CompletedPart, whole *string) error {
	slices.SortFunc(done, func(a, b types.CompletedPart) int { return cmp.Compare(*a.PartNumber, *b.PartNumber) })
	in := &s3.CompleteMultipartUploadInput{Bucket: &s.bucket, Key: s.key(key), UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: done}}
	if whole != nil {
		in.ChecksumCRC64NVME, in.ChecksumType = whole, types.ChecksumTypeFullObject
	}
	if _, err := s.client.CompleteMultipartUpload(ctx, in, patient); err != nil {
		s.abort(ctx, key, id)
		return err
	}
	return nil
}

// abort has the store forget the parts, also of a copy that was cancelled.
func (s *s3Store) abort(ctx context.Context, key string, id *string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, _ = s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: s.key(key), UploadId: id})
}

// inside is how the store itself calls the source, if it can copy it.
func (s *s3Store) inside(c *content) string {
	o, ok := c.source.(*object)
	if !ok || s.source == nil || cleanKey(o.key) != o.key || c.state.etag == "" {
		return ""
	}
	u := url.URL{Path: s.source.bucket + "/" + s.source.prefix + o.key}
	return strings.ReplaceAll(u.EscapedPath(), "+", "%2B")
}

// cleanKey is a key without what the library for buckets has an escape for.
func cleanKey(key string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return -1
		}
		return r
	}, strings.ReplaceAll(strings.ReplaceAll(key, "../", ""), "__0x", ""))
}

// copyInside has the store copy the source, in the state that it was seen in.
func (s *s3Store) copyInside(ctx context.Context, key string, c *content, from string) error {
	kind, kms := s.encryption()
	if c.state.size <= copyPart {
		in := &s3.CopyObjectInput{
			Bucket: &s.bucket, Key: s.key(key), CopySource: &from, CopySourceIfMatch: &c.state.etag,
			ContentType: some(c.state.kind), Metadata: c.meta, MetadataDirective: types.MetadataDirectiveReplace,
			StorageClass: types.StorageClass(s.options.Class), ServerSideEncryption: kind, SSEKMSKeyId: kms,
			Tagging: s.tags(), TaggingDirective: types.TaggingDirectiveReplace,
		}
		if s.checksums() {
			in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc64nvme
		}
		_, err := s.client.CopyObject(ctx, in, patient)
		return err
	}
	id, err := s.begin(ctx, key, c)
	if err != nil {
		return err
	}
	size := max(copyPart, c.state.size/mostPart+1)
	var done []types.CompletedPart
	for offset := int64(0); offset < c.state.size; offset += size {
		number := int32(len(done) + 1) // #nosec G115 -- at most mostPart
		out, err := s.client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
			Bucket: &s.bucket, Key: s.key(key), UploadId: id, PartNumber: &number, CopySource: &from, CopySourceIfMatch: &c.state.etag,
			CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", offset, min(offset+size, c.state.size)-1)),
		}, patient)
		if err != nil {
			s.abort(ctx, key, id)
			return err
		}
		c.alive(0)
		done = append(done, types.CompletedPart{ETag: out.CopyPartResult.ETag, PartNumber: &number, ChecksumCRC64NVME: out.CopyPartResult.ChecksumCRC64NVME})
	}
	return s.complete(ctx, key, id, done, nil)
}

// declined says that the store doesn't copy by itself, or not for us.
func declined(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains([]string{"AccessDenied", "NotImplemented", "MethodNotAllowed", "InvalidRequest"}, api.ErrorCode())
}

// status is HTTP's, of an answer that is an error.
func status(err error) int {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}

func (s *s3Store) look(ctx context.Context, key string) (kept, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.key(key), ChecksumMode: types.ChecksumModeEnabled}, patient)
	if status(err) == http.StatusNotFound {
		return kept{}, errNone
	}
	if err != nil {
		return kept{}, err
	}
	k := kept{size: aws.ToInt64(out.ContentLength), mark: out.Metadata[metaSource], own: true}
	if out.ChecksumType != types.ChecksumTypeComposite {
		k.sha256, k.crc64 = fromBase64(out.ChecksumSHA256), fromBase64(out.ChecksumCRC64NVME)
	}
	if k.sha256 == nil && k.crc64 == nil {
		k.sha256, k.own = fromHex(out.Metadata[metaSHA256]), false
	}
	return k, nil
}

func fromBase64(s *string) []byte {
	b, err := base64.StdEncoding.DecodeString(aws.ToString(s))
	if err != nil || len(b) == 0 {
		return nil
	}
	return b
}

func (s *s3Store) create(ctx context.Context, key string, content []byte) error {
	kind, kms := s.encryption()
	in := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: s.key(key), Body: bytes.NewReader(content), ContentType: aws.String("application/json"),
		IfNoneMatch: aws.String("*"), Tagging: s.tags(), ServerSideEncryption: kind, SSEKMSKeyId: kms,
	}
	_, err := s.client.PutObject(ctx, in, patient)
	if status(err) == http.StatusNotImplemented { // a store without conditions
		in.IfNoneMatch, in.Body = nil, bytes.NewReader(content)
		_, err = s.client.PutObject(ctx, in, patient)
	}
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
