//go:build !unix

package webhook

import "math"

// openFiles returns how many files and connections the process may open: as many as
// memory holds.
func openFiles() int { return math.MaxInt32 }
