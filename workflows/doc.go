// Package workflows holds what happens after a room has closed: workflows, one
// file each, how they are started, and the helpers that make a step of one
// retry, wait for a person and report. This is the place to edit.
//
// [RoomClose] is the workflow that every room gets. To add a step to it, write a
// method on [activities.Steps] and give it a line there.
//
// Nothing here does I/O or asks for the time: Temporal replays this code.
package workflows
