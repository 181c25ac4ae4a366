//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	if played, code := playTemporal(ctx); played {
		os.Exit(code)
	}
	stop()
	os.Exit(m.Run())
}

// Whatever is broken, every acknowledged session is closed out once. The long variant is
// `make chaos`.
func TestNothingIsLostAndNothingHappensTwice(t *testing.T) {
	o := short
	o.Dir = t.TempDir()
	o.Seed = rand.Uint64()
	if s := os.Getenv("CLOSEOUT_CHAOS_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("CLOSEOUT_CHAOS_SEED: %v", err)
		}
		o.Seed = seed
	}
	if os.Getenv("CI") != "" && os.Getuid() != 0 {
		t.Fatal("may not be skipped in CI: without root the disk is never full")
	}
	if err := Run(t.Context(), o, t.Output()); err != nil {
		t.Fatal(err)
	}
}
