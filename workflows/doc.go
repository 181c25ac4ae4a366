// Package workflows holds what happens after a room has closed: workflows, one
// file each, how they are started, and the helpers that make a step of one
// retry, wait for a person and report.
//
// A workflow is a function of the session. It begins with [Begin], says what
// steps there are, and ends with [Steps.Finish]:
//
//   - [Run] runs a step beside the others, [RunWith] one with an input;
//   - [Then] runs one with what an earlier one returned;
//   - [Await] waits for somebody else to do it;
//   - [Future.Wait] waits for what a step returned, to decide by it;
//   - [Step] says what else there is to say: limits, After, NotBefore, Optional.
//
// [RoomClose] is the workflow that a session gets unless it is routed to another.
// Steps are methods of structs: see package activities. A program of your own,
// with your workflows, is made by package closeout; in this repository, a new
// step is a method on [activities.Steps] and a line in RoomClose, and a new
// workflow is a file here and a line each in [All] and [Route].
//
// Nothing here does I/O or asks for the time: Temporal replays this code.
package workflows
