package service

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
)

// Setup ends with a reason where no retry can help, instead of trying for ever.
func TestSetupEndsWhereTheDatabaseWillNeverLetIt(t *testing.T) {
	server := testenv.Postgres(t)
	for name, tt := range map[string]struct {
		change func(*url.URL)
		advice string
	}{
		"no such database": {func(u *url.URL) { u.Path = "/nowhere" }, "create the database"},
		"no such schema":   {func(u *url.URL) { u.RawQuery = "search_path=nowhere" }, "create the schema"},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(server)
			if err != nil {
				t.Fatal(err)
			}
			tt.change(u)
			books, err := ledger.Open(u.String())
			if err != nil {
				t.Fatal(err)
			}
			defer books.Close()
			err = insist(t.Context(), slog.New(slog.DiscardHandler), "set up the ledger", func() error { return migrate(t.Context(), books) })
			if err == nil || !strings.Contains(err.Error(), tt.advice) {
				t.Errorf("error %v, want one that says %q", err, tt.advice)
			}
		})
	}
}

// What may pass is tried for as long as there is time.
func TestSetupWaitsForADatabaseThatIsAway(t *testing.T) {
	books, err := ledger.Open("postgres://u@127.0.0.1:1/db")
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	_ = insist(ctx, slog.New(slog.DiscardHandler), "set up the ledger", func() error {
		if tries++; tries == 2 {
			cancel()
		}
		return migrate(t.Context(), books)
	})
	if tries != 2 {
		t.Errorf("tried %d times", tries)
	}
}
