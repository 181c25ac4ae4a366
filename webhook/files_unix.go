//go:build unix

package webhook

import (
	"math"
	"syscall"
)

// openFiles returns how many files and connections the process may open: the soft limit,
// which Go has raised to the hard limit.
func openFiles() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxInt32
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
