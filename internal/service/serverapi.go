package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// maxTurnWait bounds a call's wait for its turn among all processes.
const maxTurnWait = 20 * time.Second

// errBusy means that all turns of the next seconds are taken.
var errBusy = errors.New("the calls of the next 20 seconds are taken")

// newServerAPI returns the client of ZEGO's server APIs. Processes with the same ledger share the
// rate limits of the recording and analytics APIs.
func newServerAPI(c *config.Config, books *ledger.Ledger) (*serverapi.Client, error) {
	api, err := serverapi.New(c.ServerAPI, c.ServerSecrets)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_SERVER_API_URL, CLOSEOUT_SERVER_SECRETS: %w", err)
	}
	if err := api.Recording(c.RecordingAPI); err != nil {
		return nil, fmt.Errorf("CLOSEOUT_RECORDING_API_URL: %w", err)
	}
	if err := api.Analytics(c.AnalyticsAPI); err != nil {
		return nil, fmt.Errorf("CLOSEOUT_ANALYTICS_API_URL: %w", err)
	}
	api.Test = c.TestApps
	api.Turn = func(ctx context.Context, budget string, pause time.Duration) error {
		wait, ok, err := books.Turn(ctx, "api "+budget, pause, maxTurnWait)
		switch {
		case err != nil:
			return err
		case !ok:
			return errBusy
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return api, nil
}
