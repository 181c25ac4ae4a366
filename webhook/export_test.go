package webhook

// What tests know of the limits.
const (
	SmallBody = smallBody
	MaxLarge  = maxLarge
)

var (
	NewServerFor = newServer
	OpenFiles    = openFiles
)
