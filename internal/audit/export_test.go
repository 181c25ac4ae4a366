package audit

// Untrue compares a session's entries with the truth.
var Untrue = untrue
