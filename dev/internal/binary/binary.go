// Package binary builds the deployed binary from the product's module.
package binary

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build builds closeout into the folder and returns its path. It passes further flags to
// `go build`.
func Build(ctx context.Context, dir string, flags ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/closeouthq/closeout").Output()
	if err != nil {
		return "", fmt.Errorf("find the module of closeout: %w", err)
	}
	path := filepath.Join(dir, "closeout")
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", path}, flags...), "./cmd/closeout")...)
	cmd.Dir = strings.TrimSpace(string(out))
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build closeout: %w\n%s", err, text)
	}
	return path, nil
}
