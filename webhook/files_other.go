//go:build !unix

package webhook

import "math"

// openFiles returns how many files and connections the process may open. Only memory
// limits them here.
func openFiles() int { return math.MaxInt32 }
