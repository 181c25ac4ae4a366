package zego

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// digest hashes what is read of a callback, in the order in which it is read. What
// nobody reads isn't in it. A nil digest does nothing.
type digest struct {
	hash   hash.Hash
	buffer []byte
}

func newDigest() *digest { return &digest{sha256.New(), make([]byte, 0, 64)} }

func (d *digest) number(n uint64) {
	if d != nil {
		d.buffer = binary.AppendUvarint(d.buffer[:0], n)
		_, _ = d.hash.Write(d.buffer) // never fails
	}
}

// text hashes the length, too, so that no two lists of strings run together.
func (d *digest) text(s string) {
	if d != nil {
		d.number(uint64(len(s)))
		d.buffer = append(d.buffer[:0], s...)
		_, _ = d.hash.Write(d.buffer) // never fails
	}
}

func (d *digest) sum() (sum [sha256.Size]byte) {
	d.hash.Sum(sum[:0])
	return sum
}
