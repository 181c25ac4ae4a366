// Package activities helps to write steps, and names the standard steps.
//
// A step is a method of a struct that holds the step's dependencies. It takes a [Task]
// and may run any number of times, because Temporal repeats it until it succeeds. Its
// error decides what happens next. [Blockedf] waits for an operator. [GiveUpf] ends the
// step without a result. Any other error is retried, after a pause if it is a
// [RetryAfterf]. [Endpoint] posts to an HTTP API and returns the right kind of error.
//
// [Standard] names the steps that every worker has.
package activities
