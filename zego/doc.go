// Package zego speaks the protocol of ZEGO's server callbacks: it parses a
// callback's body into a typed event, and signs and verifies it.
//
// A receiver calls [Parse] on the body and then [Keyring.Verify] on what came
// out. An event may be believed only after both: the signature covers neither
// the body nor the order in which its fields stand.
//
// [Client] asks ZEGO's server API about rooms.
//
// The package depends on the standard library alone, and neither serves HTTP nor
// knows of Temporal. What it knows of ZEGO comes from ZEGO's documentation of the
// room callbacks, its "Verification Description", and the pages of the server API.
package zego
