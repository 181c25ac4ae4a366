// Package webhook serves ZEGO's callbacks over HTTP. It limits, parses and verifies each
// request, passes a genuine callback to a [Receiver], and answers with the outcome. It
// doesn't store callbacks itself.
package webhook
