// Package zego implements the protocol of ZEGO's server callbacks: it parses a
// callback's body into a typed event, and signs and verifies it.
//
// A receiver calls [Scan] on the body, then [Keyring.Verify] on the fields found, and
// then [Callback.Parse]. Before Verify anybody may have sent the body, so Scan does little
// work. The signature doesn't cover the body: anybody who has seen a signature can send
// another body with it.
//
// The package depends only on the standard library and doesn't serve HTTP. Package
// zego/serverapi is a client of ZEGO's server API.
package zego
