package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/service"
)

// minFree is how many bytes should be free in the data folder: room for four million callbacks.
const minFree = 1 << 30

// checkData checks that the data folder can be written, and has room.
func (d doctor) checkData(context.Context) checkResult {
	folder, exists := nearestFolder(d.Data)
	f, err := os.CreateTemp(folder, ".closeout-doctor-*")
	if err == nil {
		_, err = f.Write(make([]byte, 4096))
		err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return fail("make room, give it to this user, or name another folder in CLOSEOUT_DATA", "user %d can't write to %s: %v", os.Getuid(), folder, err)
	}
	what := d.Data + " can be written"
	if !exists {
		what = d.Data + " isn't there yet and can be created"
	}
	free, known := freeSpace(folder)
	switch {
	case !known:
		return pass("%s", what)
	case free < minFree:
		return warn("make room: a million queued callbacks take 240 MB", "%s, %d MB are free", what, free>>20)
	}
	return pass("%s, %d GB are free", what, free>>30)
}

// nearestFolder returns the folder, or the nearest one above it that exists.
func nearestFolder(folder string) (nearest string, exists bool) {
	for nearest = folder; ; nearest = filepath.Dir(nearest) {
		if _, err := os.Stat(nearest); !errors.Is(err, fs.ErrNotExist) || nearest == filepath.Dir(nearest) {
			return nearest, nearest == folder
		}
	}
}

// checkInbox checks that an inbox takes callbacks, or belongs to a process.
func (d doctor) checkInbox(folder string) func(context.Context) checkResult {
	return func(ctx context.Context) checkResult {
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			return pass("none yet, the webhook creates it in %s", d.Data)
		}
		const hint = "make room on the disk, and give the files in it to this user"
		box, err := inbox.Open(ctx, folder, slog.New(slog.DiscardHandler))
		switch {
		case errors.Is(err, inbox.ErrLocked):
			return pass("a running process uses %s", folder)
		case err != nil:
			return fail(hint, "%v", err)
		}
		defer box.Close()
		if err := box.Probe(ctx); err != nil {
			return fail(hint, "%s: %v", folder, err)
		}
		return pass("%s can be written, no process uses it", folder)
	}
}

// checkDeadLetters checks for dead letters, and for callbacks that wait too long for their sink.
func (d doctor) checkDeadLetters(folder, sink string) func(context.Context) checkResult {
	return func(ctx context.Context) checkResult {
		store, err := inbox.Attach(ctx, folder)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return pass("none, there is no inbox yet")
		case err != nil:
			return fail("", "%v", err)
		}
		defer store.Close()
		stats, err := store.Stats(ctx)
		waiting := fmt.Sprintf("%d callbacks wait for %s", stats.Waiting, sink)
		if stats.Waiting > 0 {
			waiting += ", the oldest since " + moment(stats.Oldest)
		}
		switch {
		case err != nil:
			return fail("", "%v", err)
		case stats.DeadLetters > 0:
			return warn("closeout inbox list --dead-letters shows why; fix it, then closeout inbox retry --all", "%d dead letters, %s", stats.DeadLetters, waiting)
		case stats.Waiting > 0 && time.Since(stats.Oldest) > time.Minute:
			return warn("run a webhook on this data folder that reaches "+sink, "none, but %s", waiting)
		}
		return pass("none, %s", waiting)
	}
}

// checkWebhookLedger checks the ledger of a webhook, which may have its own by mistake.
func (d doctor) checkWebhookLedger(ctx context.Context) checkResult {
	if r := d.checkLedger(ctx); r.Status == statusFail || !d.LedgerInData() {
		return r
	}
	return warn("set CLOSEOUT_DATABASE_URL as for the worker, unless that has the same data folder; or CLOSEOUT_PARTICIPANTS=off",
		"%s is in this data folder: a worker with another ledger bills without the participants stored here", config.Where(d.DatabaseURL))
}

// checkLedger checks that the ledger has its tables and can be written.
func (d doctor) checkLedger(ctx context.Context) checkResult {
	where := config.Where(d.DatabaseURL)
	l, err := ledger.Open(d.DatabaseURL)
	if err != nil {
		return fail("", "CLOSEOUT_DATABASE_URL: %v", err)
	}
	defer l.Close()
	switch err := l.Probe(ctx); {
	case errors.Is(err, ledger.ErrNotSetUp):
		return fail("closeout setup creates them", "%s: %v", where, err)
	case err != nil:
		hint, _ := ledger.Advice(err)
		return fail(cmp.Or(hint, "is the database there, and may this user use it? CLOSEOUT_DATABASE_URL is its address"), "%s: %v", where, err)
	}
	return pass("%s has its tables, and a bill can be made", where)
}

// checkRecordings shows what the recordings' bucket has.
func (d doctor) checkRecordings(ctx context.Context) checkResult {
	bucket, result := openBucket(ctx, "CLOSEOUT_RECORDINGS_URL", d.RecordingsURL)
	if bucket != nil {
		_ = bucket.Close()
	}
	return result
}

// checkArchive shows what the archive has, and checks that it keeps what a step writes.
func (d doctor) checkArchive(ctx context.Context) checkResult {
	bucket, result := openBucket(ctx, "CLOSEOUT_ARCHIVE_URL", d.ArchiveURL)
	if bucket == nil {
		return result
	}
	defer bucket.Close()
	recordings, err := archive.OpenExisting(ctx, d.RecordingsURL)
	if err != nil {
		recordings = nil // checkRecordings reports it
	} else {
		defer recordings.Close()
	}
	switch err := archive.Probe(ctx, recordings, bucket, d.ArchiveOptions()); {
	case errors.Is(err, archive.ErrLeft):
		return warn("delete it yourself; Closeout needs no permission to", "%s, written and read back, but %v", result.Detail, err)
	case err != nil:
		return fail(archive.Advice("CLOSEOUT_ARCHIVE_URL", err), "%s, but a probe failed: %v", result.Detail, err)
	}
	return pass("%s; a probe was written, read back and removed", result.Detail)
}

// openBucket opens and lists a bucket, and reports what it has. The bucket is nil if there is nothing more to check.
func openBucket(ctx context.Context, setting, bucketURL string) (*blob.Bucket, checkResult) {
	where := config.Where(bucketURL)
	cannot := func(what string, err error) (*blob.Bucket, checkResult) {
		return nil, fail(archive.Advice(setting, err), "%s: %s: %v", where, what, err)
	}
	bucket, err := archive.OpenExisting(ctx, bucketURL)
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(bucketURL, "create_dir=true"):
		return nil, pass("%s isn't there yet, the worker creates it", where)
	case err != nil:
		return cannot("open it", err)
	}
	const enough = 1000 // of a bucket that may hold millions
	apps, folders, files := 0, 0, 0
	for object, err := range archive.List(ctx, bucket, "", true) {
		if err != nil {
			_ = bucket.Close()
			return cannot("list it", err)
		}
		_, notApp := strconv.ParseUint(strings.TrimSuffix(object.Key, "/"), 10, 32)
		switch {
		case object.IsDir && notApp == nil:
			apps++
		case object.IsDir:
			folders++
		default:
			files++
		}
		if apps+folders+files == enough {
			break
		}
	}
	if apps+folders+files == 0 {
		return bucket, pass("%s can be listed, and is empty", where)
	}
	return bucket, pass("%s can be listed, and has %d folders of apps, %d other folders and %d files", where, apps, folders, files)
}

// withLedger runs a check that needs the ledger.
func (d doctor) withLedger(ctx context.Context, run func(*ledger.Ledger) checkResult) checkResult {
	l, err := ledger.Open(d.DatabaseURL)
	if err != nil {
		return skip("needs the ledger")
	}
	defer l.Close()
	if l.Check(ctx) != nil {
		return skip("needs the ledger and its tables")
	}
	return run(l)
}

// checkReconciliation checks that workers look for what is due.
func (d doctor) checkReconciliation(ctx context.Context) checkResult {
	if d.ReconcileEvery == 0 {
		return pass("off, as CLOSEOUT_RECONCILE_INTERVAL is 0: no session without a room_close is closed out, no bill adjusted, and no late recording added")
	}
	return d.withLedger(ctx, func(l *ledger.Ledger) checkResult {
		switch last, err := l.LastLook(ctx); {
		case err != nil:
			return fail("", "%v", err)
		case last.Number == 0:
			return warn("start a worker", "no worker has looked for what is due yet")
		case time.Since(last.At) > 3*d.ReconcileEvery+time.Minute:
			return warn("start a worker, or see its log", "no worker has looked for what is due since %s", moment(last.At))
		default:
			return pass("a worker looked for what is due at %s", moment(last.At))
		}
	})
}

// checkRefusedCallbacks checks for genuine callbacks that could not be read.
func (d doctor) checkRefusedCallbacks(ctx context.Context) checkResult {
	if !d.Participants {
		return pass("not stored, as CLOSEOUT_PARTICIPANTS is off; the running webhook lists those since its start, and closeout_callback_fields_total counts them")
	}
	return d.withLedger(ctx, func(l *ledger.Ledger) checkResult {
		const days, limit = 7, 100
		all, err := l.UnreadableSince(ctx, time.Now().Add(-days*24*time.Hour), limit)
		switch {
		case err != nil:
			return fail("", "%v", err)
		case len(all) == 0:
			return pass("none signed by ZEGO in the last %d days", days)
		}
		u := all[0]
		return warn("their content is lost; report the field, and check the room's sessions",
			"%d kinds of genuine callbacks were refused in the last %d days, the last at %s: %s of room %q: %s: %s", len(all), days, moment(u.Last), u.Event, u.RoomID, u.Field, u.Problem)
	})
}

// checkLeftRecordings checks for recordings without a session.
func (d doctor) checkLeftRecordings(ctx context.Context) checkResult {
	return d.withLedger(ctx, func(l *ledger.Ledger) checkResult {
		const limit = 1000
		left, err := l.LeftRecordings(ctx, time.Now().Add(-time.Hour), limit)
		switch {
		case err != nil:
			return fail("", "%v", err)
		case len(left) == 0:
			return pass("every recording with a callback is archived")
		}
		count := strconv.Itoa(len(left))
		if len(left) == limit {
			count += " or more"
		}
		if d.Recordings.Expected == "none" {
			return warn("CLOSEOUT_RECORDINGS=callback makes runs wait for them; closeout recording list shows them",
				"%s recording tasks with callbacks are not archived, and CLOSEOUT_RECORDINGS is none: no run looks for them", count)
		}
		return warn("closeout recording list shows them; assign them by closeout recording assign",
			"%s recording tasks are not archived an hour after their last callback", count)
	})
}

// checkUnknown checks for rooms and users that ZEGO counts and the ledger lacks.
func (d doctor) checkUnknown(ctx context.Context) checkResult {
	switch {
	case len(d.ServerSecrets) == 0:
		return pass("not compared with ZEGO's counts, as no app has a server secret")
	case !d.Participants || d.ReconcileEvery == 0:
		return pass("not compared with ZEGO's counts, as CLOSEOUT_PARTICIPANTS is off, or CLOSEOUT_RECONCILE_INTERVAL is 0")
	}
	return d.withLedger(ctx, func(l *ledger.Ledger) checkResult {
		all, err := l.Comparisons(ctx, time.Now().Add(-reconcile.ComparedFor))
		if err != nil {
			return fail("", "%v", err)
		}
		var found, lacking []string
		for _, app := range slices.Sorted(maps.Keys(d.ServerSecrets)) {
			i := slices.IndexFunc(all, func(c ledger.Comparison) bool { return c.AppID == app })
			if i < 0 {
				lacking = append(lacking, strconv.FormatUint(uint64(app), 10))
			} else if what := all[i].Unknown(); what != "" {
				found = append(found, what)
			}
		}
		switch {
		case len(found) > 0:
			return warn("in ZEGO's console, check the addresses of room_create and room_login for this app, and what the webhook refuses", "%s", strings.Join(found, "; "))
		case len(lacking) > 0:
			return warn("a worker compares every 10 minutes; its log says what fails, CLOSEOUT_ANALYTICS_API_URL is the API", "not compared with ZEGO's counts of late: app %s", strings.Join(lacking, ", "))
		}
		return pass("none that ZEGO counts, in %d apps", len(d.ServerSecrets))
	})
}

// checkOverdue checks for sessions without a room_close.
func (d doctor) checkOverdue(ctx context.Context) checkResult {
	return d.withLedger(ctx, func(l *ledger.Ledger) checkResult {
		o, err := l.CountOverdue(ctx, time.Now().Add(-d.OverdueAfter))
		switch {
		case err != nil:
			return fail("", "%v", err)
		case o.Left > 0:
			return warn("set CLOSEOUT_SERVER_SECRETS; if they stay for minutes, see the runs of "+service.ReconcileID(d.Config)+" in the Web UI",
				"%d sessions that all users have left have no room_close, %d others are silent, the oldest since %s", o.Left, o.Silent, moment(o.Oldest))
		case o.Silent > 0:
			return pass("%d sessions are silent, the oldest since %s; users may be in them", o.Silent, moment(o.Oldest))
		}
		return pass("no session")
	})
}
