package webhook

// What tests know of the limits.
const (
	SmallBody = smallBody
	BodyRoom  = bodyRoom
	MinRate   = minRate
	Remember  = rememberSignatures
)

var (
	NewServerFor = newServer
	OpenFiles    = openFiles
)
