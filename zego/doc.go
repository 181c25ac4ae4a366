// Package zego speaks the protocol of ZEGO's server callbacks: it parses a
// callback's body into a typed event, and signs and verifies it.
//
// A receiver calls [Scan] on the body, [Keyring.Verify] on the fields that were
// found, and [Callback.Parse] once they are genuine. Until then, anybody may have
// sent the body, and little work is done on it. The signature doesn't cover the
// body: whoever has seen one can send another body with it.
//
// [Client] asks ZEGO's server API about rooms.
//
// The package depends on the standard library alone, and neither serves HTTP nor
// knows of Temporal. What it knows of ZEGO comes from ZEGO's documentation of the
// room callbacks, its "Verification Description", and the pages of the server API.
package zego
