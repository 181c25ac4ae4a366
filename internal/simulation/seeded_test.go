//go:build seeded

package simulation

import _ "unsafe" // for go:linkname

// seeded reports whether the runtime follows a seed.
const seeded = true

// simulationState is a variable that build adds to the runtime.
//
//go:linkname simulationState runtime.simulationState
var simulationState uint64

// seedRuntime makes the choices of the runtime depend on the seed: which goroutine runs
// next, which case of a select is taken, the order of a map.
func seedRuntime(seed uint64) { simulationState = seed }
