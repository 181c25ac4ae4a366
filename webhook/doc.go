// Package webhook serves ZEGO's callbacks over HTTP: it bounds, parses and
// verifies a request, hands a genuine callback to a [Receiver] and turns what
// came of it into an answer. It doesn't know how a callback is kept.
package webhook
