// Command pricing is a Closeout that prices sessions by functions of its own.
package main

import (
	"strings"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/pricing"
)

func main() { closeout.Main(closeout.Service{Name: "pricing", Price: Tariff}) }

// Tariff chooses the price function of a session.
func Tariff(s pricing.Session) ([]pricing.Line, error) {
	switch {
	case strings.HasPrefix(s.RoomID, "lesson-"):
		return Lesson(s)
	case strings.HasPrefix(s.RoomID, "call-"):
		return Call(s)
	}
	return Price(s)
}
