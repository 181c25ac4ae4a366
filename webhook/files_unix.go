//go:build unix

package webhook

import "syscall"

// openFiles is how many files, connections among them, the process may have
// open. Go has raised the soft limit to the hard one.
func openFiles() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return unlimited
	}
	return int(min(uint64(limit.Cur), unlimited))
}
