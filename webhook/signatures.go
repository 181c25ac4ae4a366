package webhook

import (
	"crypto/sha1" // #nosec G505 -- for its size
	"encoding/hex"
	"sync"
	"time"

	"github.com/closeouthq/closeout/internal/recent"
)

// signatures remembers the fingerprint that each signature came with. ZEGO's signature
// doesn't cover the body, so whoever has seen one could send any body with it; it is
// good only for the body that was taken. Of bodies that can't be read it is good for the
// first, and then still for one that can.
//
// Each app has a memory of its own, so that no app's callbacks push another's out. It is
// lost when the process ends.
type signatures struct {
	keep time.Duration // how long a signature is remembered at least

	mu   sync.Mutex
	apps map[uint32]*recent.Map[[sha1.Size]byte, claim]
}

// claim is what a signature came with.
type claim struct {
	fingerprint [16]byte // half of SHA-256 is enough where there is one body to equal
	unread      bool     // it can't be read
	taken       bool
	open        uint32 // callbacks with it that are being handed over
}

func newSignatures(keep time.Duration) *signatures {
	return &signatures{keep: keep, apps: map[uint32]*recent.Map[[sha1.Size]byte, claim]{}}
}

// claim reports whether the signature is free, or came with this fingerprint before. If
// so, the caller calls done with whether the callback was taken: one that wasn't leaves
// the signature free. unread reports that the body can't be read.
func (s *signatures) claim(app uint32, signature string, fingerprint [32]byte, unread bool) (done func(taken bool), ok bool) {
	var key [sha1.Size]byte
	if n, err := hex.Decode(key[:], []byte(signature)); err != nil || n != len(key) {
		return nil, false // it isn't one
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
	return func(taken bool) {
		seen.Update(key, func(c claim, found bool) (claim, bool) {
			switch {
			case !found: // it was forgotten meanwhile
				c = ours
			case c.unread != unread: // one that can be read came meanwhile
				return c, true
			default:
				c.open--
			}
			c.taken = c.taken || taken
			return c, c.taken || c.open > 0
		})
	}, true
}
