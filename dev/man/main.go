// Program man writes the man page of closeout to stdout:
//
//	go run -C dev ./man >closeout.1
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	docs "github.com/urfave/cli-docs/v3"
	urfave "github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/service"
)

func main() {
	if err := write(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func write(w io.Writer) error {
	root := cli.Root(service.Extension{}, "closeout")
	escape(root)
	page, err := docs.ToManWithSection(root, 1)
	if err != nil {
		return fmt.Errorf("make the man page: %w", err)
	}
	_, err = io.WriteString(w, page)
	return err
}

// escape escapes text for Markdown.
func escape(c *urfave.Command) {
	c.Description = strings.ReplaceAll(c.Description, "_*", `\_\*`)
	for _, f := range c.Flags {
		if f, ok := f.(*urfave.StringFlag); ok {
			f.Usage = strings.ReplaceAll(f.Usage, "[,", `\[,`)
		}
	}
	for _, sub := range c.Commands {
		escape(sub)
	}
}
