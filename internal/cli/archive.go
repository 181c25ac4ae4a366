package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v3"
	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/progress"
	"github.com/closeouthq/closeout/zego"
)

// Archive returns the command that reads the archive.
func Archive() *cli.Command {
	flags := func(more ...cli.Flag) []cli.Flag {
		return append(append(Flags("DATA", "ARCHIVE_URL", "LOG_LEVEL", "LOG_FORMAT"), more...), jsonFlag())
	}
	return &cli.Command{
		Name:  "archive",
		Usage: "show and verify archived recordings",
		Description: "Reads the bucket only.\n\n" +
			"    closeout archive show 858012925204410417\n" +
			"    closeout archive verify 858012925204410417\n" +
			"    closeout archive verify --all",
		Commands: []*cli.Command{
			{Name: "show", Usage: "show a session's manifest", ArgsUsage: sessionArgs, Flags: flags(), Action: operate(needArchive, showArchive)},
			{Name: "verify", Usage: "read archived objects, and compare size and SHA-256 with the manifest", ArgsUsage: "[" + sessionArgs + "]",
				Action: operate(checkVerify, needArchive, verifyArchive),
				Description: "Lists objects that are missing, changed or unreadable, and manifests that are unreadable, and fails if there\n" +
					"are any. Changes nothing, and can be stopped at any time.",
				Flags: flags(&cli.BoolFlag{Name: "all", Usage: "all sessions in the archive"},
					&cli.IntFlag{Name: "transfers", Value: archive.DefaultTransfers, Usage: "number of objects to read at a time"})},
		},
	}
}

// sessionFolders returns the archive's folders of the sessions that an argument names.
func sessionFolders(ctx context.Context, bucket *blob.Bucket, arg string) (found []string, err error) {
	id, err := parseSession(arg)
	if err != nil {
		return nil, err
	}
	if id.AppID != 0 {
		return []string{id.Folder()}, nil
	}
	number := strconv.FormatUint(id.RoomSessionID, 10)
	for app, err := range archive.Apps(ctx, bucket) {
		if err != nil {
			return nil, err
		}
		exists, err := bucket.Exists(ctx, app+number+"/manifest.json")
		if err != nil {
			return nil, fmt.Errorf("look for the manifest of %s%s: %w", app, number, err)
		}
		if exists {
			found = append(found, app+number+"/")
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w in the archive", archive.ErrNone)
	}
	return found, nil
}

func showArchive(ctx context.Context, op *operation) error {
	return op.each("session", exampleSession, func(arg string) error {
		folders, err := sessionFolders(ctx, op.archive, arg)
		if err != nil {
			return err
		}
		for _, folder := range folders {
			m, err := archive.Latest(ctx, op.archive, folder)
			if err != nil {
				return err
			}
			shown := manifest{m, folder, op.config.ArchiveURL}
			if err := op.print(shown, shown.print); err != nil {
				return err
			}
		}
		return nil
	})
}

// manifest is a manifest in a folder of the archive.
type manifest struct {
	archive.Manifest
	folder, archiveURL string
}

func (m manifest) print(out io.Writer) error {
	fmt.Fprintf(out, "Session %d of room %q of app %d, closed at %s (%v): %d recordings of %d bytes.\n%s\n",
		m.RoomSessionID, m.RoomID, m.AppID, m.RoomCloseTime.UTC().Format(time.RFC3339Nano), zego.CloseReasonText(m.CloseReason), len(m.Files), m.Bytes(),
		printable.Line(archive.Link(m.archiveURL, m.Key(m.folder))))
	if len(m.Files) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	t := newTable(out, "BYTES", "SHA-256", "LENGTH", "WHERE")
	for _, f := range m.Files {
		length := "-"
		if f.DurationMS > 0 {
			length = (time.Duration(f.DurationMS) * time.Millisecond).String()
		}
		t.row(f.Size, fmt.Sprintf("%.12s", f.SHA256), length, archive.Link(m.archiveURL, f.Name))
	}
	return t.print()
}

// verification is the result of archive verify.
type verification struct {
	// Sessions, Objects and Bytes count what was read.
	Sessions int64 `json:"sessions"`
	Objects  int64 `json:"objects"`
	Bytes    int64 `json:"bytes"`
	// Unfinished counts sessions with a folder and without a manifest.
	Unfinished int64           `json:"unfinished"`
	Faults     []archive.Fault `json:"faults"`
}

func (v *verification) print(out io.Writer) error {
	fmt.Fprintf(out, "%d sessions, %d objects, %d bytes read, %d faults", v.Sessions, v.Objects, v.Bytes, len(v.Faults))
	if v.Unfinished > 0 {
		fmt.Fprintf(out, "; %d sessions have no manifest yet", v.Unfinished)
	}
	fmt.Fprintln(out)
	return nil
}

// fault adds a fault, and prints it at once: a verification may take hours.
func (v *verification) fault(op *operation, f archive.Fault) {
	v.Faults = append(v.Faults, f)
	if !op.Bool("json") {
		fmt.Fprintf(op.out, "%s: %s\n", printable.Line(f.Name), oneLine(f.What))
	}
}

func checkVerify(_ context.Context, op *operation) error {
	if op.Bool("all") == op.Args().Present() {
		return withHint(usagef("want sessions or --all"), "for example: %s %s", op.FullName(), exampleSession)
	}
	return nil
}

func verifyArchive(ctx context.Context, op *operation) error {
	nowhere := memblob.OpenBucket(nil)
	defer nowhere.Close()
	mover, err := archive.NewMover(nowhere, op.archive, archive.Options{Transfers: max(1, op.Int("transfers"))})
	if err != nil {
		return err
	}
	v := &verification{Faults: []archive.Fault{}}
	var read, total atomic.Int64
	stop := progress.Bar{Total: total.Load, What: "bytes read", Done: read.Load}.Start(op.Root().ErrWriter)
	verify := func(folder string) error {
		m, err := archive.Latest(ctx, op.archive, folder)
		switch {
		case errors.Is(err, archive.ErrNone) && op.Bool("all"):
			v.Unfinished++
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			v.fault(op, archive.Fault{Name: folder, What: err.Error()})
			return nil
		}
		total.Add(m.Bytes())
		faults, err := mover.Verify(ctx, m, func(n int64) { read.Add(n) })
		for _, f := range faults {
			v.fault(op, f)
		}
		v.Sessions++
		v.Objects += int64(len(m.Files))
		return err
	}
	err = eachFolder(ctx, op, verify)
	stop()
	if err != nil {
		return err
	}
	v.Bytes = read.Load()
	if err := op.print(v, v.print); err != nil {
		return err
	}
	if n := len(v.Faults); n > 0 {
		return fmt.Errorf("%d objects are missing or changed", n)
	}
	return nil
}

// eachFolder calls f with the folder of each session that the command is for.
func eachFolder(ctx context.Context, op *operation, f func(folder string) error) error {
	if !op.Bool("all") {
		return op.each("session", exampleSession, func(arg string) error {
			folders, err := sessionFolders(ctx, op.archive, arg)
			for _, folder := range folders {
				if err == nil {
					err = f(folder)
				}
			}
			return err
		})
	}
	for folder, err := range archive.Sessions(ctx, op.archive) {
		if err == nil {
			err = f(folder)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
