// Command closeout closes out the voice rooms that ZEGO has destroyed.
package main

import "github.com/closeouthq/closeout"

func main() {
	closeout.Main(closeout.Service{})
}
