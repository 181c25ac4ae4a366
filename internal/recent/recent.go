// Package recent remembers recent keys in little memory. If keys and values have no
// pointers, the garbage collector doesn't scan the maps. An LRU cache, which has a list
// entry for each key, takes several times the memory.
package recent

import (
	"sync"
	"time"
)

// Map remembers at least the minKeys most recent keys, and at most twice as many. It is safe
// for concurrent use.
type Map[K comparable, V any] struct {
	// Keep, if set, is the minimum time for which the Map remembers a key, unless newer
	// keys displace it. A key twice as old is forgotten. Set Keep before use.
	Keep time.Duration

	minKeys int

	mu            sync.Mutex
	young, former map[K]V // when young is full or old, it replaces former
	began         time.Time
}

// New returns a map that remembers at least minKeys keys.
func New[K comparable, V any](minKeys int) *Map[K, V] {
	return &Map[K, V]{minKeys: minKeys, young: map[K]V{}}
}

// Get returns the key's value.
func (m *Map[K, V]) Get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(key)
}

func (m *Map[K, V]) get(key K) (V, bool) {
	if now := time.Now(); m.Keep > 0 && now.Sub(m.began) >= m.Keep {
		m.young, m.former, m.began = map[K]V{}, m.young, now
	}
	v, found := m.young[key]
	if !found {
		v, found = m.former[key]
	}
	return v, found
}

// Update calls f with the key's value and stores the value that f returns. If keep is
// false, Update removes the key. The key becomes the most recent one.
func (m *Map[K, V]) Update(key K, f func(value V, found bool) (updated V, keep bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, keep := f(m.get(key))
	if !keep {
		delete(m.young, key)
		delete(m.former, key)
		return
	}
	m.put(key, v)
}

func (m *Map[K, V]) put(key K, value V) {
	if _, found := m.young[key]; !found && len(m.young) >= m.minKeys {
		m.young, m.former, m.began = map[K]V{}, m.young, time.Now()
	}
	m.young[key] = value
}

// Add stores the value unless the key has one. It returns the key's value, and reports
// whether the key had it before.
func (m *Map[K, V]) Add(key K, value V) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, found := m.get(key); found {
		return v, true
	}
	m.put(key, value)
	return value, false
}
