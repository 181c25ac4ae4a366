// Package closeouttest helps to test workflows and steps of your own, and
// whatever takes ZEGO's callbacks.
//
// [RoomClose] makes a genuine callback and [Request] posts it. An [Env] runs a
// workflow as Closeout does, with the standard steps mocked and the time skipped.
// [Replay] finds out whether the workflows still take the runs that are under
// way.
package closeouttest
