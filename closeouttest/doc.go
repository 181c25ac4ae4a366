// Package closeouttest helps to test your Workflows, your steps, and handlers of ZEGO's
// callbacks.
//
// [RoomClose] returns a genuine callback, and [Request] a request with it. An [Env] runs a
// Workflow as Closeout does, with the standard steps mocked and time skipped. [Replay]
// checks that open runs can continue on your changed Workflows.
package closeouttest
