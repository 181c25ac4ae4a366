package webhook

// The limits that tests use.
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
