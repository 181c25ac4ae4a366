package webhook

import (
	"crypto/sha1" // #nosec G505 -- for its size
	"encoding/hex"
	"sync"
	"time"
)

// signatures remembers what each signature came with. ZEGO's signature doesn't
// cover the body, so whoever has seen one could send any body with it; the body
// that was taken is the only one it is good for.
//
// Each app has a memory of its own, so that no app's callbacks push another's out.
// It is lost when the process ends.
type signatures struct {
	keep time.Duration // how long a signature is remembered at least
	most int           // of one app at once
	now  func() time.Time

	mu   sync.Mutex
	apps map[uint32]*appSignatures
}

// appSignatures has two generations: when the young one is old, it takes the place
// of the former. Maps without pointers cost the garbage collector nothing.
type appSignatures struct {
	young, former map[[sha1.Size]byte]claim
	began         time.Time // the young generation
}

// A claim is what a signature came with.
type claim struct {
	fingerprint [fingerprintLen]byte
	taken       bool
	open        uint32 // how many callbacks with it are being handed over
}

// fingerprintLen is how much of a fingerprint is remembered. Half of SHA-256 is
// enough where there is one body to be the same as.
const fingerprintLen = 16

func newSignatures(keep time.Duration, most int, now func() time.Time) *signatures {
	return &signatures{keep: keep, most: most, now: now, apps: map[uint32]*appSignatures{}}
}

// claim reports whether the signature is free, or came with this fingerprint
// before. If so, the caller calls done: with whether the callback was taken, as one
// that wasn't leaves the signature free.
func (s *signatures) claim(app uint32, signature string, fingerprint [32]byte) (done func(taken bool), ok bool) {
	var key [sha1.Size]byte
	if n, err := hex.Decode(key[:], []byte(signature)); err != nil || n != len(key) {
		return nil, false // it isn't one
	}
	ours := claim{fingerprint: [fingerprintLen]byte(fingerprint[:fingerprintLen])}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, known := s.of(app).get(key)
	if known && c.fingerprint != ours.fingerprint {
		return nil, false
	}
	if !known {
		c = ours
	}
	c.open++
	s.of(app).young[key] = c
	return func(taken bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		a := s.of(app)
		c, known := a.get(key)
		if !known {
			c, c.open = ours, 1
		}
		c.open--
		if c.taken = c.taken || taken; !c.taken && c.open == 0 {
			delete(a.young, key)
			delete(a.former, key)
			return
		}
		a.young[key] = c
	}, true
}

// of returns the memory of an app, without what is too old.
func (s *signatures) of(app uint32) *appSignatures {
	a, now := s.apps[app], s.now()
	if a == nil {
		a = &appSignatures{young: map[[sha1.Size]byte]claim{}, began: now}
		s.apps[app] = a
	}
	if len(a.young) >= s.most || now.Sub(a.began) >= s.keep {
		a.young, a.former, a.began = map[[sha1.Size]byte]claim{}, a.young, now
	}
	return a
}

func (a *appSignatures) get(key [sha1.Size]byte) (claim, bool) {
	c, found := a.young[key]
	if !found {
		c, found = a.former[key]
	}
	return c, found
}
