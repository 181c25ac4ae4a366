// Package activities holds the steps that touch the world after a room has
// closed, grouped by what they touch. Each is a method of a struct whose fields
// are what it needs, takes a [Task] and may run any number of times: Temporal
// repeats it until it succeeds.
//
// To add a step, write a method on [Steps] and add a line to
// [github.com/closeouthq/closeout/workflows.RoomClose]. Nothing has to be
// registered.
package activities
