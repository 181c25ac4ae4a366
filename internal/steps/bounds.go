package steps

import "github.com/closeouthq/closeout/internal/printable"

// maxName bounds a name or a reason in a list. Names in callbacks may be long and many, and
// a payload of more than 2 MiB fails a step for good.
const maxName = 300

// short returns foreign text, bounded and printable.
func short(s string) string { return printable.Foreign(s, maxName) }
