// Package workflows holds the post-close Workflows and what you need to write your
// own.
//
// A post-close Workflow is a function of the session. It calls [Begin], starts its
// steps, and returns [Run.Finish]:
//
//   - [Start] starts a step, [StartWith] one with an input;
//   - [Then] starts a step with the result of an earlier one;
//   - [Await] waits for a Signal with a result from elsewhere;
//   - [Future.Wait] returns the result of a step, to decide by it;
//   - [Step] sets timeouts, retries, dependencies and delays.
//
// [RoomClose] is the default. Steps are methods of structs: see package activities.
// Package closeout makes a program of your Workflows and steps.
//
// This code is replayed by Temporal: it does no I/O and reads no clock.
package workflows
