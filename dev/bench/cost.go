//go:build linux

package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/dev/internal/actions"
)

// cost is the total cost of sessions for Temporal.
type cost struct {
	events, bytes, transitions, actions int64
	rows, stored                        int64 // in the persistence store
}

// measureCost compares the cost of a closed session and of an idle minute for Temporal:
// Closeout against the naive handler with the same two steps, each on its own server.
func measureCost(ctx context.Context, b *bench) error {
	const sessions, idle = 200, time.Minute
	names := []string{"naive", "Closeout"}
	closed, quiet := map[string]cost{}, map[string]cost{}
	for _, name := range names {
		err := func() error {
			w, err := b.newWorld(ctx)
			if err != nil {
				return err
			}
			defer w.stop()
			var p *process
			if name == "Closeout" {
				p, _, err = b.closeout(w.address, b.folder(), noops)
			} else {
				p, err = b.start("naive", "--temporal", w.address, "--worker")
			}
			if err != nil {
				return err
			}
			defer p.stop()
			before, err := w.stored(ctx)
			if err != nil {
				return err
			}
			if err := w.close(ctx, p.address, sessions); err != nil {
				return err
			}
			if closed[name], err = w.cost(ctx, before); err != nil {
				return err
			}
			if before, err = w.stored(ctx); err != nil {
				return err
			}
			select {
			case <-time.After(idle): // the measured time
			case <-ctx.Done():
				return ctx.Err()
			}
			after, err := w.cost(ctx, before)
			quiet[name] = after.minus(closed[name])
			return err
		}()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	b.table("a closed session\tevents\tbytes of history\tstate transitions\tbillable actions\trows stored\tbytes stored")
	for _, name := range names {
		c, n := closed[name], float64(sessions)
		b.row("%s\t%.1f\t%.0f\t%.1f\t%.1f\t%.1f\t%.0f", name, float64(c.events)/n, float64(c.bytes)/n, float64(c.transitions)/n,
			float64(c.actions)/n, float64(c.rows)/n, float64(c.stored)/n)
	}
	b.table("an idle day, from " + idle.String() + "\tevents\tbytes of history\tstate transitions\tbillable actions")
	for _, name := range names {
		c, n := quiet[name], int64(24*time.Hour/idle)
		b.row("%s\t%d\t%d\t%d\t%d", name, c.events*n, c.bytes*n, c.transitions*n, c.actions*n)
	}
	return b.flush()
}

func (c cost) minus(d cost) cost {
	return cost{c.events - d.events, c.bytes - d.bytes, c.transitions - d.transitions, c.actions - d.actions, 0, 0}
}

// close closes n sessions, eight at a time, and waits until their runs are complete.
func (w *world) close(ctx context.Context, address string, sessions int) error {
	senders, sending := errgroup.WithContext(ctx)
	for range 8 {
		senders.Go(func() error {
			_, err := oneConnection(sending, address, sessions/8, newCallback)
			return err
		})
	}
	if err := senders.Wait(); err != nil {
		return err
	}
	for {
		done, err := w.count(ctx, "ExecutionStatus = 'Completed'")
		if err != nil || done >= int64(sessions) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// cost returns the total of all runs, and the growth of the store.
func (w *world) cost(ctx context.Context, before cost) (c cost, err error) {
	if c, err = w.stored(ctx); err != nil {
		return c, err
	}
	c.rows, c.stored = c.rows-before.rows, c.stored-before.stored
	var page []byte
	for {
		answer, err := w.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: 1000, NextPageToken: page})
		if err != nil {
			return c, fmt.Errorf("list runs: %w", err)
		}
		for _, found := range answer.GetExecutions() {
			id, run := found.GetExecution().GetWorkflowId(), found.GetExecution().GetRunId()
			described, err := w.client.DescribeWorkflowExecution(ctx, id, run)
			if err != nil {
				return c, fmt.Errorf("describe %s: %w", id, err)
			}
			info := described.GetWorkflowExecutionInfo()
			c.events += info.GetHistoryLength()
			c.bytes += info.GetHistorySizeBytes()
			c.transitions += info.GetStateTransitionCount()
			n, err := actions.Of(ctx, w.client, id, run)
			if err != nil {
				return c, err
			}
			c.actions += n
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			return c, nil
		}
	}
}

// stored returns the number of rows in the server's database, and their bytes.
func (w *world) stored(ctx context.Context) (c cost, err error) {
	path := filepath.Join(w.dir, "temporal.db")
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return c, fmt.Errorf("open %s: %w", path, err)
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '%_fts%'")
	if err != nil {
		return c, fmt.Errorf("list the tables of %s: %w", path, err)
	}
	defer rows.Close()
	var counts []string
	for rows.Next() {
		var table string
		if err := rows.Scan(&table); err != nil {
			return c, err
		}
		counts = append(counts, `(SELECT count(*) FROM "`+table+`")`)
	}
	if err := rows.Err(); err != nil {
		return c, err
	}
	if err := db.QueryRowContext(ctx, "SELECT "+strings.Join(counts, "+")+`, (SELECT (p.page_count - f.freelist_count) * s.page_size
		FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s)`).Scan(&c.rows, &c.stored); err != nil {
		return c, fmt.Errorf("count the rows of %s: %w", path, err)
	}
	return c, nil
}

// measureClosing compares how many sessions a second `serve` closes out, including all
// steps, with the closeout binary named by CLOSEOUT_BENCH_BEFORE.
func measureClosing(ctx context.Context, b *bench) error {
	const sessions = 3000
	binaries := map[string]string{"this": b.binary}
	names := []string{"this"}
	if before := os.Getenv("CLOSEOUT_BENCH_BEFORE"); before != "" {
		binaries["before"], names = before, []string{"before", "this"}
	}
	s := series{}
	for round := range rounds {
		for k := range names {
			name := names[(k+round)%len(names)]
			rate, err := b.closing(ctx, binaries[name], sessions)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			s.add(name, rate)
		}
	}
	b.table("closing, serve\tsessions closed out/s")
	for _, name := range names {
		b.row("%s\t%.1f", name, median(s[name]))
	}
	if len(names) > 1 {
		b.row("this / before\t%.2f (want 2.4)", s.ratio("this", "before"))
	} else {
		b.row("this / before\tset CLOSEOUT_BENCH_BEFORE to the binary of an earlier commit")
	}
	return b.flush()
}

// closing returns how many sessions a second a closeout binary closes out, on its own
// server.
func (b *bench) closing(ctx context.Context, binary string, sessions int) (float64, error) {
	ours := b.binary
	b.binary = binary
	defer func() { b.binary = ours }()
	w, err := b.newWorld(ctx)
	if err != nil {
		return 0, err
	}
	defer w.stop()
	p, _, err := b.closeout(w.address, b.folder(), serves, "CLOSEOUT_SETTLING=3s")
	if err != nil {
		return 0, err
	}
	defer p.stop()
	began := time.Now()
	if err := w.close(ctx, p.address, sessions); err != nil {
		return 0, err
	}
	return float64(sessions) / time.Since(began).Seconds(), nil
}
