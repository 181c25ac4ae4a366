//go:build linux || darwin || freebsd

package cli

import "syscall"

// freeSpace is how many bytes a file system has left for us.
func freeSpace(folder string) (bytes uint64, known bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return 0, false
	}
	return uint64(s.Bavail) * uint64(s.Bsize), true // #nosec G115 -- neither is negative
}
