// Package activities has what steps are written with, and the names of the standard
// steps.
//
// A step is a method of a struct that holds what the step needs. It takes a [Task]
// and may run any number of times: Temporal repeats it until it succeeds. Its error
// decides what happens next. Any error is retried, after the pause that [RetryAfter]
// asks for; [Blocked] waits for an operator, and [GiveUp] ends the step without a
// result. [Endpoint] posts to an HTTP API and returns the right one.
//
// [Standard] names the steps that every worker has.
package activities
