// Command closeout-clouds is closeout with the buckets of Google Cloud Storage and Azure.
package main

import (
	"github.com/closeouthq/closeout"
	_ "github.com/closeouthq/closeout/clouds/azure"
	_ "github.com/closeouthq/closeout/clouds/gcs"
)

func main() {
	closeout.Main(closeout.Service{})
}
