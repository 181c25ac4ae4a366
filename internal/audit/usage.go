package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/closeouthq/closeout/internal/collect"
	"github.com/closeouthq/closeout/internal/ledger"
)

// maxNamed is how many callbacks a fault names.
const maxNamed = 5

// JournalUsage reads of a journal, as [Journal] does, which callbacks of
// participants were acknowledged.
func JournalUsage(path string) iter.Seq2[ledger.Usage, error] {
	return func(yield func(ledger.Usage, error) bool) {
		file, err := os.Open(path) // #nosec G304 -- it is what the operator named
		if err != nil {
			yield(ledger.Usage{}, err)
			return
		}
		defer file.Close()
		lines := bufio.NewReaderSize(file, 64<<10)
		for n := 1; ; n++ {
			line, readErr := lines.ReadBytes('\n')
			if readErr != nil && !errors.Is(readErr, io.EOF) {
				yield(ledger.Usage{}, fmt.Errorf("%s:%d: %w", path, n, readErr))
				return
			}
			var l struct {
				AppID         uint32 `json:"appid"`
				RoomSessionID uint64 `json:"room_session_id,string"`
				Usage         []struct {
					Event, Stay, User string
					Acknowledged      bool
				} `json:"usage"`
			}
			if json.Unmarshal(line, &l) == nil { // of what can't be read, Journal tells
				for _, u := range l.Usage {
					if u.Acknowledged && !yield(ledger.Usage{AppID: l.AppID, RoomSessionID: l.RoomSessionID, Event: u.Event, Stay: u.Stay, User: u.User}, nil) {
						return
					}
				}
			}
			if readErr != nil {
				return
			}
		}
	}
}

// readUsage judges the callbacks of participants. One goes from the inbox to the
// ledger, so whatever isn't in the ledger is looked for in the inbox, and once more
// in the ledger.
func (a *audit) readUsage(ctx context.Context) error {
	lacking := map[key][]ledger.Usage{}
	if a.Usage != nil {
		for u, err := range a.Usage {
			if err != nil {
				return fmt.Errorf("read the journal: %w", err)
			}
			lacks, err := a.Ledger.Lacks(ctx, u)
			if err != nil {
				return fmt.Errorf("read the ledger: %w", err)
			}
			a.report.UsageAcknowledged++
			if lacks {
				k := keyOf(u.AppID, u.RoomSessionID)
				lacking[k] = append(lacking[k], u)
			}
		}
	}
	queued, aside := map[key]bool{}, map[key]string{}
	for _, store := range a.UsageInbox {
		for e, err := range store.All(ctx) {
			if err != nil {
				return fmt.Errorf("read the inbox of usage: %w", err)
			}
			_, app, session, err := collect.ParseKey(e.Key)
			if err != nil {
				return fmt.Errorf("read the inbox of usage: %w", err)
			}
			k := keyOf(app, session)
			queued[k] = true
			if e.SetAsideAt.IsZero() {
				a.report.UsageWaiting++
				continue
			}
			a.report.UsageSetAside++
			aside[k] = fmt.Sprintf("The callback %s is set aside, as the ledger refuses it: %q", e.Key, e.Reason)
		}
	}
	for k, problem := range aside {
		a.report.add(k, Fault{Kind: UsageSetAside, Problem: problem,
			Remedy: "Mend what the ledger complains of, and then: closeout inbox retry --all. closeout inbox list --usage --set-aside lists them."})
	}
	for k, all := range lacking {
		if queued[k] {
			continue // by its session alone, which is enough to wait for
		}
		var lost []string
		for _, u := range all {
			lacks, err := a.Ledger.Lacks(ctx, u)
			if err != nil {
				return fmt.Errorf("read the ledger: %w", err)
			}
			if lacks {
				lost = append(lost, strings.TrimSpace(u.Event+" "+u.User))
			}
		}
		if len(lost) == 0 {
			continue
		}
		named := strings.Join(lost[:min(len(lost), maxNamed)], ", ")
		if len(lost) > maxNamed {
			named += " ..."
		}
		a.report.add(k, Fault{Kind: UsageLost,
			Problem: fmt.Sprintf("Of its participants %d callbacks were acknowledged that are neither in the ledger nor in the inbox: %s.", len(lost), named),
			Remedy:  "See that the webhook and this audit have the same ledger (CLOSEOUT_DATABASE_URL), and that all webhooks' folders were looked into (--usage-inbox). If they are lost, its bill lacks them."})
	}
	return nil
}
