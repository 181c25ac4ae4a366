//go:build seeded

package simulation

import _ "unsafe" // for go:linkname

// seeded reports whether the runtime follows a seed.
const seeded = true

// simulationState belongs to the runtime as build changes it.
//
//go:linkname simulationState runtime.simulationState
var simulationState uint64

// seedRuntime has the runtime's choices follow from the seed: which goroutine runs next,
// which case of a select, in which order a map is read.
func seedRuntime(seed uint64) { simulationState = seed }
