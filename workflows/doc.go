// Package workflows holds the post-close Workflows and what you need to write your
// own.
//
// A post-close Workflow is a function of the session. It calls [Begin], starts its
// steps, and returns [Run.Finish]:
//
//   - [Start] starts a step, [StartWith] a step with an input;
//   - [Then] starts a step with the result of an earlier step;
//   - [Await] waits for a Signal with a result from another system;
//   - [Future.Wait] returns the result of a step, so that the Workflow can branch on it;
//   - [Step] sets timeouts, retries, dependencies and delays.
//
// [RoomClose] is the default. Steps are methods of structs: see package activities.
// Package closeout runs your Workflows and steps as a service.
//
// Temporal replays this code, so it does no I/O and reads no clock.
package workflows
