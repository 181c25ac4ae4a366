package command

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/service"
)

// codecServer is the command that decrypts for people who look at runs.
func codecServer() *cli.Command {
	return &cli.Command{
		Name:  "codec",
		Usage: "decrypt for Temporal's Web UI and command line what CLOSEOUT_PAYLOAD_KEYS encrypts",
		Description: "A codec server as Temporal knows it: give its address to the Web UI, or to `temporal` as --codec-endpoint.\n" +
			"Pages of CLOSEOUT_UI_URL may call it, and no others. On another address than the loopback it wants\n" +
			"CLOSEOUT_CODEC_TOKEN to be set, and its callers to show it.",
		Flags: Flags("PAYLOAD_KEYS", "CODEC_LISTEN", "CODEC_TOKEN", "UI_URL", "TLS_CERT", "TLS_KEY", "STOP_TIMEOUT", "LOG_LEVEL", "LOG_FORMAT"),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, log, err := Load(cmd, false)
			if err != nil {
				return err
			}
			return service.RunCodec(ctx, c, log)
		},
	}
}
