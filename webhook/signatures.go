package webhook

import (
	"crypto/sha1" // #nosec G505 -- for its size
	"encoding/hex"

	"github.com/closeouthq/closeout/internal/recent"
)

// signatures remembers what each signature came with. ZEGO's signature doesn't
// cover the body, so whoever has seen one could send any body with it; the first
// body is the only one it is good for.
type signatures struct {
	bodies *recent.Map[[sha1.Size]byte, [fingerprintLen]byte]
}

// fingerprintLen is how much of a fingerprint is remembered. Half of SHA-256 is
// enough where there is one body to be the same as.
const fingerprintLen = 16

func newSignatures(least int) *signatures {
	return &signatures{recent.New[[sha1.Size]byte, [fingerprintLen]byte](least)}
}

// same says whether the signature is new, or came with this fingerprint before.
func (s *signatures) same(signature string, fingerprint [32]byte) bool {
	var key [sha1.Size]byte
	if n, err := hex.Decode(key[:], []byte(signature)); err != nil || n != len(key) {
		return false // it isn't one
	}
	ours := [fingerprintLen]byte(fingerprint[:fingerprintLen])
	first, _ := s.bodies.Add(key, ours)
	return first == ours
}
