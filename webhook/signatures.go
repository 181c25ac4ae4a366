package webhook

import (
	lru "github.com/hashicorp/golang-lru/v2"
)

// signatures remembers what each signature came with. ZEGO's signature doesn't
// cover the body, so whoever has seen one could send any body with it; the first
// body is the only one it is good for.
type signatures struct {
	cache *lru.Cache[string, [32]byte]
}

func newSignatures(most int) *signatures {
	cache, err := lru.New[string, [32]byte](most)
	if err != nil {
		panic(err) // only for a size that isn't positive
	}
	return &signatures{cache}
}

// same says whether the signature is new, or came with this fingerprint before.
func (s *signatures) same(signature string, fingerprint [32]byte) bool {
	first, found, _ := s.cache.PeekOrAdd(signature, fingerprint)
	return !found || first == fingerprint
}
