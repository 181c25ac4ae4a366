package ledger_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
)

// Refusal reports content that PostgreSQL can never store. An error on the way to the database says
// nothing about the content.
func TestRefusalIsAboutContent(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		if strings.HasPrefix(databaseURL, "postgres") {
			if err := l.Record(t.Context(), []ledger.Event{login("no\x00text", "1", 1)}); err == nil || !ledger.Refusal(err) {
				t.Errorf("a NUL: error %v, want a refusal", err)
			}
		}
		if err := l.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Record(gone, []ledger.Event{login("u", "1", 1)}); err == nil || ledger.Refusal(err) {
			t.Errorf("no time: error %v, want one that may pass", err)
		}
	})
	if ledger.Refusal(nil) || ledger.Refusal(errors.New("connection refused")) {
		t.Error("Refusal is true for an error that the database did not return")
	}
}

func TestLacksReportsUnrecordedEvents(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		lacks := func(u ledger.Event, want bool) {
			t.Helper()
			if got, err := l.Lacks(t.Context(), u); err != nil || got != want {
				t.Errorf("lacks %s: %v, %v, want %v", u.Event, got, err, want)
			}
		}
		lacks(created(0), true)
		if err := l.Record(t.Context(), []ledger.Event{login("u", "1", 1)}); err != nil {
			t.Fatal(err)
		}
		lacks(login("u", "1", 1), false)
		lacks(login("u", "2", 1), true)
		lacks(logout("u", "1", 1, 2), true)
		lacks(created(0), true) // the session is known, but its room_create isn't
		if err := l.Record(t.Context(), []ledger.Event{logout("u", "1", 1, 2), created(0)}); err != nil {
			t.Fatal(err)
		}
		lacks(logout("u", "1", 1, 2), false)
		lacks(created(0), false)
	})
}
