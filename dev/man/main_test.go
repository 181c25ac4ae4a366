package main

import (
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/service"
)

func TestManPageIsCompleteAndReproducible(t *testing.T) {
	var page, again strings.Builder
	if err := write(&page); err != nil {
		t.Fatal(err)
	}
	if err := write(&again); err != nil || again.String() != page.String() {
		t.Errorf("another page, %v", err)
	}
	for _, command := range cli.Root(service.Extension{}, "closeout").Commands {
		if !command.Hidden && !strings.Contains(page.String(), ".SH "+command.Name+"\n") {
			t.Errorf("the page lacks %s", command.Name)
		}
	}
}
