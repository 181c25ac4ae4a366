package webhook

// What tests know of the limits.
const (
	SmallBody  = smallBody
	BodyMemory = bodyMemory
	MinRate    = minRate
	Remember   = rememberSignatures
)

var (
	NewServerFor = newServer
	OpenFiles    = openFiles
)
