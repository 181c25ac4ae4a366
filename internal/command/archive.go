package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"
	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/progress"
	"github.com/closeouthq/closeout/workflows"
)

// Archive is the command that looks into the archive.
func Archive() *cli.Command {
	flags := func(more ...cli.Flag) []cli.Flag {
		return append(append(Flags("DATA", "ARCHIVE_URL", "LOG_LEVEL", "LOG_FORMAT"), more...), &cli.BoolFlag{Name: "json", Usage: "write it as JSON"})
	}
	return &cli.Command{
		Name:  "archive",
		Usage: "show what was archived of a session, and verify that it still is what it was",
		Description: "Reads the bucket alone, and needs nothing else to run.\n\n" +
			"    closeout archive show 858012925204410417\n" +
			"    closeout archive verify 858012925204410417\n" +
			"    closeout archive verify --all",
		Commands: []*cli.Command{
			{Name: "show", Usage: "show a session's manifest", ArgsUsage: "ROOM-SESSION-ID|WORKFLOW-ID...", Flags: flags(), Action: showArchive},
			{Name: "verify", Usage: "read what was archived, and compare size and SHA-256 with the manifest", ArgsUsage: "[ROOM-SESSION-ID|WORKFLOW-ID...]", Action: verifyArchive,
				Description: "Names every object that is missing, has changed or can't be read, and every manifest that can't be,\n" +
					"and fails if there is one. Changes nothing, and may be stopped at any time.",
				Flags: flags(&cli.BoolFlag{Name: "all", Usage: "all sessions in the archive"},
					&cli.IntFlag{Name: "transfers", Value: archive.DefaultTransfers, Usage: "how many objects are read at once"})},
		},
	}
}

// withArchive opens the archive for f.
func withArchive(ctx context.Context, cmd *cli.Command, f func(*config.Config, *blob.Bucket) error) error {
	c, _, err := Load(cmd, false)
	if err != nil {
		return err
	}
	bucket, err := openArchive(ctx, c)
	if err != nil {
		return err
	}
	defer bucket.Close()
	return f(c, bucket)
}

// openArchive opens the archive of the settings and creates none.
func openArchive(ctx context.Context, c *config.Config) (*blob.Bucket, error) {
	bucket, err := archive.OpenExisting(ctx, c.ArchiveURL)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the archive: %w; CLOSEOUT_ARCHIVE_URL or CLOSEOUT_DATA choose another", err)
	}
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_ARCHIVE_URL: open the bucket: %w", err)
	}
	return bucket, nil
}

// foldersOf gives the folders of the sessions that the argument means.
func foldersOf(ctx context.Context, bucket *blob.Bucket, arg string) (found []string, err error) {
	if app, session, err := workflows.ParseWorkflowID(arg); err == nil {
		return []string{activities.SessionFolder(activities.Session{AppID: app, RoomSessionID: session})}, nil
	}
	if _, err := strconv.ParseUint(arg, 10, 64); err != nil {
		return nil, fmt.Errorf("%q: want a room_session_id or a workflow ID, as in 858012925204410417 or room-close-1-858012925204410417", arg)
	}
	for app, err := range archive.Apps(ctx, bucket) {
		if err != nil {
			return nil, err
		}
		there, err := bucket.Exists(ctx, app+arg+"/manifest.json")
		if err != nil {
			return nil, fmt.Errorf("look for the manifest of %s%s: %w", app, arg, err)
		}
		if there {
			found = append(found, app+arg+"/")
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: %w of it in the archive", arg, archive.ErrNone)
	}
	return found, nil
}

func showArchive(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() == 0 {
		return errors.New("no session, want one as in: closeout archive show 858012925204410417")
	}
	return withArchive(ctx, cmd, func(c *config.Config, bucket *blob.Bucket) error {
		var faults []error
		for _, arg := range cmd.Args().Slice() {
			folders, err := foldersOf(ctx, bucket, arg)
			faults = append(faults, err)
			for _, folder := range folders {
				m, err := archive.Latest(ctx, bucket, folder)
				if err == nil {
					err = writeManifest(cmd, m, archive.Link(c.ArchiveURL, m.Key(folder)), func(key string) string { return archive.Link(c.ArchiveURL, key) })
				}
				faults = append(faults, err)
			}
		}
		return errors.Join(faults...)
	})
}

func writeManifest(cmd *cli.Command, m archive.Manifest, where string, link func(string) string) error {
	out := cmd.Root().Writer
	if cmd.Bool("json") {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(m)
	}
	fmt.Fprintf(out, "Session %d of room %q of app %d, closed at %s (%v): %d recordings of %d bytes.\n%s\n",
		m.RoomSessionID, m.RoomID, m.AppID, m.RoomCloseTime.UTC().Format(time.RFC3339Nano), m.CloseReason, len(m.Files), m.Bytes(), where)
	if len(m.Files) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nBYTES\tSHA-256\tPLAYS\tWHERE")
	for _, f := range m.Files {
		plays := "-"
		if f.DurationMS > 0 {
			plays = (time.Duration(f.DurationMS) * time.Millisecond).String()
		}
		fmt.Fprintf(table, "%d\t%.12s\t%s\t%s\n", f.Size, f.SHA256, plays, printable.Line(link(f.Name)))
	}
	return table.Flush()
}

// verified is what a verification found.
type verified struct {
	// Sessions, Objects and Bytes are what was verified.
	Sessions int64 `json:"sessions"`
	Objects  int64 `json:"objects"`
	Bytes    int64 `json:"bytes"`
	// Unfinished are sessions that have a folder and no manifest.
	Unfinished int64 `json:"unfinished"`
	// Faults are what is wrong.
	Faults []archive.Fault `json:"faults"`
}

func verifyArchive(ctx context.Context, cmd *cli.Command) error {
	if all := cmd.Bool("all"); all == cmd.Args().Present() {
		return errors.New("want sessions or --all, as in: closeout archive verify 858012925204410417")
	}
	return withArchive(ctx, cmd, func(_ *config.Config, bucket *blob.Bucket) error {
		nowhere := memblob.OpenBucket(nil)
		defer nowhere.Close()
		mover, err := archive.NewMover(nowhere, bucket, archive.Options{Transfers: max(1, cmd.Int("transfers"))})
		if err != nil {
			return err
		}
		v := verified{Faults: []archive.Fault{}}
		var read, total atomic.Int64
		stop := progress.Bar{Total: total.Load, What: "bytes read", Bytes: true, Done: read.Load}.Start(cmd.Root().ErrWriter)
		fault := func(f archive.Fault) {
			v.Faults = append(v.Faults, f)
			if !cmd.Bool("json") {
				fmt.Fprintf(cmd.Root().Writer, "%s: %s\n", printable.Line(f.Name), inALine(f.What))
			}
		}
		one := func(folder string) error {
			m, err := archive.Latest(ctx, bucket, folder)
			switch {
			case errors.Is(err, archive.ErrNone) && cmd.Bool("all"):
				v.Unfinished++
				return nil
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				fault(archive.Fault{Name: folder, What: err.Error()})
				return nil
			}
			total.Add(m.Bytes())
			faults, err := mover.Verify(ctx, m, func(n int64) { read.Add(n) })
			for _, f := range faults {
				fault(f)
			}
			v.Sessions++
			v.Objects += int64(len(m.Files))
			return err
		}
		err = eachFolder(ctx, cmd, bucket, one)
		stop()
		if err != nil {
			return err
		}
		v.Bytes = read.Load()
		if cmd.Bool("json") {
			enc := json.NewEncoder(cmd.Root().Writer)
			enc.SetIndent("", "  ")
			if err := enc.Encode(v); err != nil {
				return err
			}
		} else {
			fmt.Fprintf(cmd.Root().Writer, "%d sessions, %d objects, %d bytes read, %d faults", v.Sessions, v.Objects, v.Bytes, len(v.Faults))
			if v.Unfinished > 0 {
				fmt.Fprintf(cmd.Root().Writer, "; %d sessions have no manifest yet", v.Unfinished)
			}
			fmt.Fprintln(cmd.Root().Writer)
		}
		if n := len(v.Faults); n > 0 {
			return fmt.Errorf("%d objects aren't what they were", n)
		}
		return nil
	})
}

// eachFolder goes through the sessions that the command is about.
func eachFolder(ctx context.Context, cmd *cli.Command, bucket *blob.Bucket, do func(folder string) error) error {
	if cmd.Bool("all") {
		for folder, err := range archive.Sessions(ctx, bucket) {
			if err == nil {
				err = do(folder)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, arg := range cmd.Args().Slice() {
		folders, err := foldersOf(ctx, bucket, arg)
		if err != nil {
			return err
		}
		for _, folder := range folders {
			if err := do(folder); err != nil {
				return err
			}
		}
	}
	return nil
}
