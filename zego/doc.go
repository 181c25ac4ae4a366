// Package zego implements the protocol of ZEGO's server callbacks: it parses a
// callback's body into a typed event, and signs and verifies it.
//
// A receiver calls [Scan] on the body, [Keyring.Verify] on the fields found, and
// [Callback.Parse] once they are genuine. Until then anybody may have sent the body,
// so Scan does little work. The signature doesn't cover the body: whoever has seen
// one can send another body with it.
//
// The package depends on the standard library alone and doesn't serve HTTP. Package
// zego/serverapi is the client of ZEGO's server API.
package zego
