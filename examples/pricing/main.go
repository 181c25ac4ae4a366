// Command pricing is a Closeout that prices sessions with its own functions.
package main

import (
	"strings"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/pricing"
)

func main() { closeout.Main(closeout.Service{Name: "pricing", Price: Tariff}) }

// Tariff prices a session with the function for its room.
func Tariff(s pricing.Session) ([]pricing.Line, error) {
	switch {
	case strings.HasPrefix(s.RoomID, "lesson-"):
		return Lesson(s)
	case strings.HasPrefix(s.RoomID, "call-"):
		return Call(s)
	}
	return Price(s)
}
