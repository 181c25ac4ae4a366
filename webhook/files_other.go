//go:build !unix

package webhook

// openFiles is how many files the process may have open: elsewhere, memory
// alone says.
func openFiles() int { return unlimited }
