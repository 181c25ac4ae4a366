// Command closeout runs the post-close work of ZEGO's voice rooms.
package main

import "github.com/closeouthq/closeout"

func main() {
	closeout.Main(closeout.Service{})
}
