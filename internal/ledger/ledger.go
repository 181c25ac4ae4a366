// Package ledger keeps what money depends on in a SQL database: SQLite or
// PostgreSQL, with the same queries on both.
package ledger

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// versions is the table in which goose keeps what it has migrated.
const versions = "ledger_migrations"

// Bill is the entry of one session. There is never a second one.
type Bill struct {
	// ID is the idempotency key under which it was made.
	ID uuid.UUID `json:"bill_id"`
	// AppID is ZEGO's id of the app.
	AppID uint32 `json:"appid"`
	// RoomID is the room's name.
	RoomID string `json:"room_id"`
	// RoomSessionID is the session that is billed.
	RoomSessionID uint64 `json:"room_session_id,string"`
	// CloseReason is ZEGO's close_reason.
	CloseReason uint32 `json:"close_reason"`
	// RoomCloseTime is when the room was destroyed by ZEGO's clock, to the
	// millisecond and in UTC.
	RoomCloseTime time.Time `json:"room_close_time"`
}

// Ledger is an open database. It is safe for concurrent use, also by several
// processes.
type Ledger struct {
	db      *sql.DB
	dialect goose.Dialect
	path    string // of the SQLite file

	mu       sync.Mutex
	migrated bool
}

// Open prepares the database at the URL: "sqlite:" and a path, or "postgres://".
// It doesn't connect yet, so that a database that is away delays nothing but
// what needs it.
func Open(databaseURL string) (*Ledger, error) {
	scheme, rest, _ := strings.Cut(databaseURL, ":")
	switch scheme {
	case "sqlite":
		path := strings.TrimPrefix(rest, "//")
		if path == "" {
			return nil, errors.New("open ledger: sqlite: URL without a path, want sqlite:/path/to/ledger.db")
		}
		// A writer waits for the other one instead of failing, from its first
		// statement on, and a bill that was reported is on the disk.
		pragmas := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"}, "_txlock": {"immediate"}}
		db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: pragmas.Encode()}).String())
		if err != nil {
			return nil, fmt.Errorf("open ledger %s: %w", path, err)
		}
		db.SetMaxOpenConns(4) // one writes, the others wait for it
		return &Ledger{db: db, dialect: goose.DialectSQLite3, path: path}, nil

	case "postgres", "postgresql":
		config, err := pgx.ParseConfig(databaseURL)
		if err != nil {
			// pgx quotes the URL, and redacts only a password where it expects one.
			return nil, errors.New("open ledger: not a PostgreSQL URL, want postgres://user:password@host:5432/database")
		}
		db := stdlib.OpenDB(*config)
		db.SetMaxOpenConns(10)
		db.SetMaxIdleConns(10)
		db.SetConnMaxIdleTime(5 * time.Minute)
		return &Ledger{db: db, dialect: goose.DialectPostgres}, nil
	}
	return nil, errors.New("open ledger: the scheme of its URL is neither sqlite nor postgres")
}

// Close closes the database.
func (l *Ledger) Close() error { return l.db.Close() }

// Migrate brings the schema up to date. Any number of processes may do it at
// once. The other methods do it where it wasn't done.
func (l *Ledger) Migrate(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.migrated {
		return nil
	}
	if err := l.migrate(ctx); err != nil {
		return fmt.Errorf("migrate ledger: %w", err)
	}
	l.migrated = true
	return nil
}

func (l *Ledger) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	options := []goose.ProviderOption{goose.WithTableName(versions), goose.WithSlog(slog.New(slog.DiscardHandler))}
	switch l.dialect {
	case goose.DialectPostgres:
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60)) // 60 tries, 1 s apart
		if err != nil {
			return err
		}
		options = append(options, goose.WithSessionLocker(locker))
	case goose.DialectSQLite3:
		if err := os.MkdirAll(filepath.Dir(l.path), 0o750); err != nil {
			return err
		}
		// SQLite's own lock is let go between the statements of a migration.
		file := flock.New(l.path + ".lock")
		if _, err := file.TryLockContext(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("lock %s: %w", file.Path(), err)
		}
		defer func() { _ = file.Close() }()
	}
	provider, err := goose.NewProvider(l.dialect, l.db, files, options...)
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// Finalize writes the bill unless there is one of the same ID, and returns the
// one that is there. It is the first writer's for good.
func (l *Ledger) Finalize(ctx context.Context, b Bill) (Bill, error) {
	if err := l.Migrate(ctx); err != nil {
		return Bill{}, err
	}
	_, err := l.db.ExecContext(ctx, `
		INSERT INTO bills (id, appid, room_id, room_session_id, close_reason, room_close_time, made_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT DO NOTHING`,
		b.ID.String(), int64(b.AppID), b.RoomID, strconv.FormatUint(b.RoomSessionID, 10), int64(b.CloseReason), b.RoomCloseTime.UnixMilli(), time.Now().UnixMilli())
	if err != nil {
		return Bill{}, fmt.Errorf("insert bill: %w", err)
	}
	return l.Bill(ctx, b.AppID, b.RoomSessionID)
}

// MadeBill is a bill, and when it was made.
type MadeBill struct {
	Bill
	// MadeAt is when, by the clock of the worker that made it, to the millisecond
	// and in UTC.
	MadeAt time.Time `json:"made_at"`
}

// Bill finds the session's bill. The error wraps [sql.ErrNoRows] if it has none.
func (l *Ledger) Bill(ctx context.Context, appID uint32, roomSessionID uint64) (Bill, error) {
	b, err := l.MadeBill(ctx, appID, roomSessionID)
	return b.Bill, err
}

const billColumns = "id, appid, room_id, room_session_id, close_reason, room_close_time, made_at"

// MadeBill is [Ledger.Bill] that also tells when the bill was made.
func (l *Ledger) MadeBill(ctx context.Context, appID uint32, roomSessionID uint64) (MadeBill, error) {
	if err := l.Migrate(ctx); err != nil {
		return MadeBill{}, err
	}
	b, err := scanBill(l.db.QueryRowContext(ctx, "SELECT "+billColumns+" FROM bills WHERE appid = $1 AND room_session_id = $2",
		int64(appID), strconv.FormatUint(roomSessionID, 10)))
	if err != nil {
		return MadeBill{}, fmt.Errorf("read the bill of session %d of app %d: %w", roomSessionID, appID, err)
	}
	return b, nil
}

// billsPage is how many bills are read in one go.
var billsPage = 5000

// Bills lists the bills that were made at a time or later; all, if it is zero.
// They are read in pages, so that neither memory nor the writers' time is held
// for long. A bill that is made meanwhile may be listed or not; all others are,
// once. An error ends the list.
func (l *Ledger) Bills(ctx context.Context, since time.Time) iter.Seq2[MadeBill, error] {
	return func(yield func(MadeBill, error) bool) {
		if err := l.Migrate(ctx); err != nil {
			yield(MadeBill{}, err)
			return
		}
		last := MadeBill{}
		for first := true; ; first = false {
			page, err := l.billsAfter(ctx, last.Bill, first, since)
			if err != nil {
				yield(MadeBill{}, fmt.Errorf("list bills: %w", err))
				return
			}
			for _, b := range page {
				if !yield(b, nil) {
					return
				}
			}
			if len(page) < billsPage {
				return
			}
			last = page[len(page)-1]
		}
	}
}

// billsAfter reads a page in the order of the index bills_session. Which order
// of text that is depends on the database, and doesn't matter.
func (l *Ledger) billsAfter(ctx context.Context, last Bill, first bool, since time.Time) ([]MadeBill, error) {
	app, session := int64(last.AppID), strconv.FormatUint(last.RoomSessionID, 10)
	if first {
		app, session = -1, ""
	}
	rows, err := l.db.QueryContext(ctx, "SELECT "+billColumns+` FROM bills
		WHERE (appid, room_session_id) > ($1, $2) AND made_at >= $3
		ORDER BY appid, room_session_id LIMIT $4`, app, session, since.UnixMilli(), billsPage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []MadeBill
	for rows.Next() {
		b, err := scanBill(rows)
		if err != nil {
			return nil, err
		}
		page = append(page, b)
	}
	return page, rows.Err()
}

// scanBill reads the billColumns of a row.
func scanBill(row interface{ Scan(...any) error }) (b MadeBill, err error) {
	var (
		session           string
		closeMillis, made int64
		app, closeCode    int64
	)
	if err := row.Scan(&b.ID, &app, &b.RoomID, &session, &closeCode, &closeMillis, &made); err != nil {
		return b, err
	}
	b.AppID, b.CloseReason = uint32(app), uint32(closeCode)
	b.RoomCloseTime, b.MadeAt = time.UnixMilli(closeMillis).UTC(), time.UnixMilli(made).UTC()
	b.RoomSessionID, err = strconv.ParseUint(session, 10, 64)
	return b, err
}
