// Command closeout-clouds is the command closeout with support for Google Cloud Storage and
// Azure Blob Storage.
package main

import (
	"github.com/closeouthq/closeout"
	_ "github.com/closeouthq/closeout/clouds/azure"
	_ "github.com/closeouthq/closeout/clouds/gcs"
)

func main() {
	closeout.Main(closeout.Service{})
}
