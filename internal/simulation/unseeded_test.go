//go:build !seeded

package simulation

import "testing"

// seeded reports whether the runtime follows a seed.
const seeded = false

// seedRuntime does nothing: the runtime chooses at random which goroutine runs next.
func seedRuntime(*testing.T, uint64) (end func() uint64) { return func() uint64 { return 0 } }
