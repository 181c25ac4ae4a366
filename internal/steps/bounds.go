package steps

import "github.com/closeouthq/closeout/internal/printable"

// maxName bounds a name or a reason among others. What Temporal keeps of a step is
// bounded: a payload of more than 2 MiB fails it for good, and names in callbacks may
// be long, and many.
const maxName = 300

// short returns foreign text, bounded and fit for people.
func short(s string) string { return printable.Foreign(s, maxName) }
