package audit

// Untrue exports untrue for tests.
var Untrue = untrue
