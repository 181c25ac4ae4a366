package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"
)

// bashCompletion completes commands and flags without the package bash-completion, which the library's own script needs.
const bashCompletion = `# Bash completion for NAME. In ~/.bashrc: source <(NAME completion bash)
_NAME_complete() {
  local word=${COMP_WORDS[COMP_CWORD]} typed=("${COMP_WORDS[@]:0:COMP_CWORD}") IFS=$'\n'
  [[ $word == -* ]] && typed+=("$word")
  COMPREPLY=($(compgen -W "$("${typed[@]/#\~/$HOME}" --generate-shell-completion 2>/dev/null | cut -d: -f1)" -- "$word"))
}
complete -o bashdefault -o default -F _NAME_complete NAME
`

// showCompletion puts the completion command into help.
func showCompletion(completion *cli.Command) {
	completion.Hidden = false
	completion.Usage = "print a completion script for bash, zsh, fish or PowerShell"
	for _, shell := range completion.Commands {
		shell.Usage = "print the script for " + shell.Name
		if shell.Name == "bash" {
			shell.Action = func(_ context.Context, cmd *cli.Command) error {
				_, err := fmt.Fprint(cmd.Root().Writer, strings.ReplaceAll(bashCompletion, "NAME", cmd.Root().Name))
				return err
			}
		}
	}
}
