// Package zstd compresses without C. It has what Pebble calls.
package zstd

import (
	"errors"

	"github.com/klauspost/compress/zstd"
)

// Ctx compresses and decompresses.
type Ctx interface {
	CompressLevel(dst, src []byte, level int) ([]byte, error)
	DecompressInto(dst, src []byte) (int, error)
}

// NewCtx returns a Ctx.
func NewCtx() Ctx { return &context{} }

type context struct {
	level   int
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// CompressBound returns the size that n bytes have at most when compressed.
func CompressBound(n int) int { return n + n>>7 + 1<<10 }

// CompressLevel compresses src into dst, if that is large enough.
func (c *context) CompressLevel(dst, src []byte, level int) (_ []byte, err error) {
	if c.encoder == nil || c.level != level {
		c.level = level
		if c.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(1)); err != nil {
			return nil, err
		}
	}
	return c.encoder.EncodeAll(src, dst[:0]), nil
}

// DecompressInto decompresses src into dst, which must be large enough.
func (c *context) DecompressInto(dst, src []byte) (n int, err error) {
	if c.decoder == nil {
		if c.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1)); err != nil {
			return 0, err
		}
	}
	out, err := c.decoder.DecodeAll(src, dst[:0])
	if err == nil && len(out) > len(dst) {
		err = errors.New("zstd: the buffer is too small")
	}
	return len(out), err
}
