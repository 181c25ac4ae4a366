package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc64"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

// maxParts is S3's maximum number of parts.
const maxParts = 10_000

var (
	// partSize is S3's minimum, because each transfer holds two parts in memory. Parts are larger
	// if maxParts of this size do not suffice.
	partSize = 5 << 20
	// copyPart is the size of the parts of a server-side copy.
	copyPart int64 = 512 << 20
)

func (s *s3Store) upload(ctx context.Context, key string, c *content, sums bool) error {
	size := max(partSize, int(c.state.size/maxParts+1))
	get := func() *[]byte {
		if size == partSize {
			return s.buffers.Get().(*[]byte)
		}
		b := make([]byte, size)
		return &b
	}
	release := func(b *[]byte) {
		if size == partSize {
			s.buffers.Put(b)
		}
	}
	first := get()
	n, err := io.ReadFull(c.reader, *first)
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // wrapped, they are the source's
		defer release(first)
		return s.putSmall(ctx, key, c, (*first)[:n], sums)
	}
	if err != nil {
		return err
	}

	id, err := s.begin(ctx, key, c, sums)
	if err != nil {
		return err
	}
	var done []types.CompletedPart
	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(1) // send one part while reading the next
	send := func(number int32, buffer *[]byte, n int) {
		group.Go(func() error {
			defer release(buffer)
			part := (*buffer)[:n]
			in := &s3.UploadPartInput{Bucket: &s.bucket, Key: s.key(key), UploadId: id, PartNumber: &number, Body: bytes.NewReader(part)}
			if sums {
				sum := crc64.New(nvme)
				_, _ = sum.Write(part)
				in.ChecksumCRC64NVME = toBase64(sum.Sum(nil))
			}
			out, err := s.client.UploadPart(sending, in)
			if err != nil {
				return err
			}
			c.alive(0)
			done = append(done, types.CompletedPart{ETag: out.ETag, PartNumber: &number, ChecksumCRC64NVME: in.ChecksumCRC64NVME})
			return nil
		})
	}
	send(1, first, n)
	for number := int32(2); err == nil && sending.Err() == nil; number++ {
		buffer := get()
		if n, err = io.ReadFull(c.reader, *buffer); n > 0 && (err == nil || err == io.ErrUnexpectedEOF) { //nolint:errorlint // as above
			send(number, buffer, n)
		}
	}
	if sent := group.Wait(); sent != nil {
		err = sent
	} else if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // as above
		err = nil
	}
	if err != nil {
		s.abort(ctx, key, id)
		return err
	}
	var whole *string
	if sums {
		whole = toBase64(c.sums.crc64.Sum(nil))
	}
	return s.complete(ctx, key, id, done, whole)
}

// putSmall puts an object with one request.
func (s *s3Store) putSmall(ctx context.Context, key string, c *content, b []byte, sums bool) error {
	sum := sha256.Sum256(b)
	c.meta[metaSHA256] = hex.EncodeToString(sum[:])
	kind, kms := s.encryption()
	in := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: s.key(key), Body: bytes.NewReader(b), ContentLength: aws.Int64(int64(len(b))),
		ContentType: some(c.state.kind), Metadata: c.meta,
		StorageClass: types.StorageClass(s.options.Class), Tagging: s.tags(), ServerSideEncryption: kind, SSEKMSKeyId: kms,
	}
	if sums {
		in.ChecksumSHA256 = toBase64(sum[:])
	}
	_, err := s.client.PutObject(ctx, in)
	return err
}

// begin begins an upload in parts.
func (s *s3Store) begin(ctx context.Context, key string, c *content, sums bool) (id *string, err error) {
	kind, kms := s.encryption()
	in := &s3.CreateMultipartUploadInput{
		Bucket: &s.bucket, Key: s.key(key), ContentType: some(c.state.kind), Metadata: c.meta,
		StorageClass: types.StorageClass(s.options.Class), Tagging: s.tags(), ServerSideEncryption: kind, SSEKMSKeyId: kms,
	}
	if sums {
		in.ChecksumAlgorithm, in.ChecksumType = types.ChecksumAlgorithmCrc64nvme, types.ChecksumTypeFullObject
	}
	out, err := s.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.UploadId, nil
}

// complete completes a multipart upload. whole is the checksum of the object, if known.
func (s *s3Store) complete(ctx context.Context, key string, id *string, done []types.CompletedPart, whole *string) error {
	in := &s3.CompleteMultipartUploadInput{Bucket: &s.bucket, Key: s.key(key), UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: done}}
	if whole != nil {
		in.ChecksumCRC64NVME, in.ChecksumType = whole, types.ChecksumTypeFullObject
	}
	if _, err := s.client.CompleteMultipartUpload(ctx, in); err != nil {
		s.abort(ctx, key, id)
		return err
	}
	return nil
}

// abort deletes the parts, even after a cancelled copy.
func (s *s3Store) abort(ctx context.Context, key string, id *string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, _ = s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: s.key(key), UploadId: id})
}

// inside returns the source's name within the store, or "" if the store cannot copy it.
func (s *s3Store) inside(c *content) string {
	o, ok := c.source.(*object)
	if !ok || s.source == nil || c.state.etag == "" || strings.Contains(o.key, "../") || strings.Contains(o.key, "__0x") ||
		strings.ContainsFunc(o.key, func(r rune) bool { return r < ' ' }) { // gocloud escapes these
		return ""
	}
	u := url.URL{Path: s.source.bucket + "/" + s.source.prefix + o.key}
	return strings.ReplaceAll(u.EscapedPath(), "+", "%2B")
}

// copyInside makes the store copy the source, if it is still in the same state.
func (s *s3Store) copyInside(ctx context.Context, key string, c *content, from string, sums bool) error {
	kind, kms := s.encryption()
	if c.state.size <= copyPart {
		in := &s3.CopyObjectInput{
			Bucket: &s.bucket, Key: s.key(key), CopySource: &from, CopySourceIfMatch: &c.state.etag,
			ContentType: some(c.state.kind), Metadata: c.meta, MetadataDirective: types.MetadataDirectiveReplace,
			StorageClass: types.StorageClass(s.options.Class), ServerSideEncryption: kind, SSEKMSKeyId: kms, Tagging: s.tags(),
		}
		if in.Tagging != nil {
			in.TaggingDirective = types.TaggingDirectiveReplace
		}
		if sums {
			in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc64nvme
		}
		_, err := s.client.CopyObject(ctx, in)
		return err
	}
	id, err := s.begin(ctx, key, c, sums)
	if err != nil {
		return err
	}
	size := max(copyPart, c.state.size/maxParts+1)
	var done []types.CompletedPart
	for offset := int64(0); offset < c.state.size; offset += size {
		number := int32(len(done) + 1) // #nosec G115 -- at most maxParts
		out, err := s.client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
			Bucket: &s.bucket, Key: s.key(key), UploadId: id, PartNumber: &number, CopySource: &from, CopySourceIfMatch: &c.state.etag,
			CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", offset, min(offset+size, c.state.size)-1)),
		})
		if err != nil {
			s.abort(ctx, key, id)
			return err
		}
		c.alive(0)
		done = append(done, types.CompletedPart{ETag: out.CopyPartResult.ETag, PartNumber: &number, ChecksumCRC64NVME: out.CopyPartResult.ChecksumCRC64NVME})
	}
	return s.complete(ctx, key, id, done, nil)
}
