//go:build !seeded

package simulation

// seeded reports whether the runtime follows a seed.
const seeded = false

// seedRuntime does nothing: the runtime chooses at random which goroutine runs next.
func seedRuntime(uint64) {}
