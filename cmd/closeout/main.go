// Command closeout closes out the voice rooms that ZEGO has destroyed.
package main

import (
	"os"

	"github.com/closeouthq/closeout/internal/command"
)

func main() {
	os.Exit(command.Main(os.Args, os.Stdout, os.Stderr))
}
