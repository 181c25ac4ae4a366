// Package webhook serves ZEGO's callbacks over HTTP: it bounds, parses and verifies a
// request, hands a genuine callback to a [Receiver] and answers with the outcome. It
// doesn't know how a callback is stored.
package webhook
