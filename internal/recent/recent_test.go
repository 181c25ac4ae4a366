package recent_test

import (
	"sync"
	"testing"

	"github.com/closeouthq/closeout/internal/recent"
)

func TestMap(t *testing.T) {
	const least = 100
	m := recent.New[int, int](least)
	for n := range 10 * least {
		if v, found := m.Add(n, -n); found || v != -n {
			t.Fatalf("add %d: %d, %v", n, v, found)
		}
		if v, found := m.Add(n, 7); !found || v != -n {
			t.Fatalf("add %d again: %d, %v", n, v, found)
		}
		known := 0
		for k := range n + 1 {
			v, found := m.Get(k)
			if found {
				known++
			}
			if found && v != -k || !found && k > n-least {
				t.Fatalf("after %d: %d is %d, %v", n, k, v, found)
			}
		}
		if known > 2*least {
			t.Fatalf("after %d: %d are known", n, known)
		}
	}
}

func TestOnlyOneGoroutineAdds(t *testing.T) {
	m := recent.New[string, int](10)
	var all sync.WaitGroup
	added := make(chan int, 50)
	for n := range 50 {
		all.Go(func() {
			if _, found := m.Add("key", n); !found {
				added <- n
			}
		})
	}
	all.Wait()
	if v, _ := m.Get("key"); len(added) != 1 || v != <-added {
		t.Errorf("%d added it", len(added)+1)
	}
}
