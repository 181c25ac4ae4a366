// Package recent remembers what was added last, in little memory: maps without
// pointers, which the garbage collector doesn't look into. An LRU cache, with a
// list entry for each key, takes a few times as much.
package recent

import "sync"

// Map remembers at least the given number of the keys that were added last, and
// at most twice as many. It is safe for concurrent use.
type Map[K comparable, V any] struct {
	least int

	mu            sync.Mutex
	young, former map[K]V
}

// New makes a map that remembers at least so many keys.
func New[K comparable, V any](least int) *Map[K, V] {
	return &Map[K, V]{least: least, young: map[K]V{}}
}

// Get gives the value that the key was added with.
func (m *Map[K, V]) Get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(key)
}

func (m *Map[K, V]) get(key K) (V, bool) {
	v, found := m.young[key]
	if !found {
		v, found = m.former[key]
	}
	return v, found
}

// Add adds the key, unless it is there. It gives the value that is there then,
// and says whether it was before.
func (m *Map[K, V]) Add(key K, value V) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, found := m.get(key); found {
		return v, true
	}
	if len(m.young) >= m.least {
		m.young, m.former = map[K]V{}, m.young
	}
	m.young[key] = value
	return value, false
}
