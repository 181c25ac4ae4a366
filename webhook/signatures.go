package webhook

import (
	"crypto/sha1" // #nosec G505 -- for its size
	"encoding/hex"
	"sync"
	"time"

	"github.com/closeouthq/closeout/internal/recent"
)

// signatures remembers the fingerprint of the body that came with each signature. ZEGO's
// signature doesn't cover the body, so anybody who has seen a signature could send another
// body with it. Therefore a signature is valid for one body only: the first that was
// accepted. If the first body can't be read, the signature stays valid for that body, and
// for one readable body.
//
// Each app has its own memory, so that no app displaces the signatures of another. The
// memory is lost when the process ends.
type signatures struct {
	keep time.Duration // minimum time for which a signature is remembered

	mu   sync.Mutex
	apps map[uint32]*recent.Map[[sha1.Size]byte, claim]
}

// claim describes the body that came with a signature.
type claim struct {
	fingerprint [16]byte // half of a SHA-256 is enough to compare with one body
	unread      bool     // the body can't be read
	accepted    bool     // the receiver accepted the callback
	open        uint32   // callbacks with the signature that the receiver has now
}

func newSignatures(keep time.Duration) *signatures {
	return &signatures{keep: keep, apps: map[uint32]*recent.Map[[sha1.Size]byte, claim]{}}
}

// claim reports whether the signature is valid for the body with this fingerprint. If so,
// the caller must call done and report whether the callback was accepted. If it wasn't, the
// signature can be used with another body. unread means that the body can't be read.
func (s *signatures) claim(app uint32, signature string, fingerprint [32]byte, unread bool) (done func(accepted bool), ok bool) {
	var key [sha1.Size]byte
	if n, err := hex.Decode(key[:], []byte(signature)); err != nil || n != len(key) {
		return nil, false // not a signature
	}
	s.mu.Lock()
	seen := s.apps[app]
	if seen == nil {
		seen = recent.New[[sha1.Size]byte, claim](rememberSignatures)
		seen.Keep = s.keep
		s.apps[app] = seen
	}
	s.mu.Unlock()

	ours := claim{fingerprint: [16]byte(fingerprint[:16]), unread: unread}
	seen.Update(key, func(c claim, found bool) (claim, bool) {
		if !found || c.unread && !unread {
			c = ours
		}
		if ok = c.fingerprint == ours.fingerprint && c.unread == unread; ok {
			c.open++
		}
		return c, true
	})
	if !ok {
		return nil, false
	}
	return func(accepted bool) {
		seen.Update(key, func(c claim, found bool) (claim, bool) {
			switch {
			case !found: // forgotten in the meantime
				c = ours
			case c.unread != unread: // a readable body came in the meantime
				return c, true
			default:
				c.open--
			}
			c.accepted = c.accepted || accepted
			return c, c.accepted || c.open > 0
		})
	}, true
}
