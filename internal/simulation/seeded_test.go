//go:build seeded

package simulation

import (
	"testing"
	"testing/cryptotest"
	_ "unsafe" // for go:linkname
)

// seeded reports whether the runtime follows a seed.
const seeded = true

// Variables that build adds to the runtime.
//
//go:linkname simulationSeed runtime.simulationSeed
//go:linkname simulationState runtime.simulationState
var simulationSeed, simulationState uint64

// seedRuntime makes the choices of the runtime in a bubble depend on the seed until end is
// called. end returns a hash of the choices.
func seedRuntime(t *testing.T, seed uint64) (end func() uint64) {
	cryptotest.SetGlobalRandom(t, seed)
	simulationSeed, simulationState = (2*seed+1)*0x9e3779b97f4a7c15, seed
	return func() uint64 {
		simulationSeed = 0
		return simulationState
	}
}
