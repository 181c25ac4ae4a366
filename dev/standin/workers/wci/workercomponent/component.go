// Package workercomponent has no workers.
package workercomponent

import "go.uber.org/fx"

// Module provides nothing.
var Module = fx.Options()
