// Package activities holds the steps that touch the world after a room has
// closed, grouped by what they touch. Each is a method of a struct whose fields
// are what it needs, takes a [Task] and may run any number of times: Temporal
// repeats it until it succeeds.
//
// What a step's error says decides what happens next: any error is worth another
// try, after the pause that [RetryAfter] names; [Blocked] waits for a person, and
// [GiveUp] does without. [Endpoint] posts to an HTTP API and returns the right one.
//
// To add a step to the standard ones, write a method on [Steps] and give it a line
// in a workflow. Nothing has to be registered.
package activities
