package steps_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

var task = activities.Task{
	Session:        session.Session{ID: session.ID{AppID: 1, RoomSessionID: math.MaxUint64}, RoomID: "lobby", CloseReason: zego.CloseOffline, RoomCloseTime: time.UnixMilli(1499676989909).UTC()},
	IdempotencyKey: uuid.MustParse("018f6f3e-0000-7000-8000-000000000001"),
}

// run runs an Activity as a worker does.
func run[R any](t *testing.T, env *testsuite.TestActivityEnvironment, activity any) (R, error) {
	t.Helper()
	var result R
	env.RegisterActivity(activity)
	value, err := env.ExecuteActivity(activity, task)
	if err == nil {
		err = value.Get(&result)
	}
	return result, err
}

func newEnv() *testsuite.TestActivityEnvironment {
	return (&testsuite.WorkflowTestSuite{}).NewTestActivityEnvironment()
}

func openLedger(t *testing.T, databaseURL string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func sqlite(t *testing.T) *ledger.Ledger {
	return openLedger(t, "sqlite:"+filepath.Join(t.TempDir(), "ledger.db"))
}

func TestFinalizeBill(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		billing := &steps.Billing{Ledger: openLedger(t, databaseURL)}
		for range 2 {
			bill, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill)
			if err != nil {
				t.Fatal(err)
			}
			if bill.ID != task.IdempotencyKey || bill.RoomSessionID != math.MaxUint64 || !bill.RoomCloseTime.Equal(task.Session.RoomCloseTime) || bill.Posted {
				t.Errorf("bill %+v", bill)
			}
		}
	})
}

func TestBillingAPI(t *testing.T) {
	const retries, blocks, done = "retries", "blocks", "done"
	tests := []struct {
		status     int
		retryAfter string
		want       string
		delay      time.Duration
	}{
		{200, "", done, 0}, {201, "", done, 0}, {204, "", done, 0}, {409, "", done, 0},
		{400, "", blocks, 0}, {401, "", blocks, 0}, {402, "", blocks, 0}, {404, "", blocks, 0}, {422, "", blocks, 0},
		{302, "", retries, 0}, {408, "", retries, 0}, {429, "", retries, 0}, {500, "", retries, 0}, {503, "", retries, 0},
		{503, "7", retries, 7 * time.Second}, {429, "99999999", retries, time.Hour}, {503, "soon", retries, 0},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.status, tt.retryAfter), func(t *testing.T) {
			var got *http.Request
			var body []byte
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
				w.Header().Set("Retry-After", tt.retryAfter)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				fmt.Fprint(w, "what the API says")
			}))
			defer api.Close()
			billing := &steps.Billing{Ledger: sqlite(t), API: activities.Endpoint{Name: "the billing API", URL: api.URL + "/bills", Token: "t0ken"}}
			bill, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill)

			var app *temporal.ApplicationError
			switch {
			case tt.want == done:
				if err != nil || !bill.Posted {
					t.Errorf("bill %+v, error %v", bill, err)
				}
			case !errors.As(err, &app):
				t.Errorf("error %v", err)
			case app.NonRetryable() != (tt.want == blocks):
				t.Errorf("%v: non-retryable: %v", err, app.NonRetryable())
			case !strings.Contains(app.Message(), "what the API says") || !strings.Contains(app.Message(), fmt.Sprint(tt.status)):
				t.Errorf("message %q", app.Message())
			case app.NextRetryDelay() != tt.delay:
				t.Errorf("retries after %v, want %v", app.NextRetryDelay(), tt.delay)
			}

			if got.Method != "POST" || got.URL.Path != "/bills" || got.Header.Get("Idempotency-Key") != task.IdempotencyKey.String() ||
				got.Header.Get("Authorization") != "Bearer t0ken" || !strings.HasPrefix(got.Header.Get("Content-Type"), "application/cloudevents+json") {
				t.Errorf("request %v %v %v", got.Method, got.URL, got.Header)
			}
			var event struct {
				SpecVersion, ID, Source, Type, Subject, Time, DataContentType string
				Data                                                          map[string]any
			}
			if err := json.Unmarshal(body, &event); err != nil {
				t.Fatal(err)
			}
			if event.SpecVersion != "1.0" || event.ID != task.IdempotencyKey.String() || event.Source != "/closeout/apps/1" || event.Type == "" ||
				event.Time != "2017-07-10T08:56:29.909Z" || event.Subject != "18446744073709551615" || event.DataContentType != "application/json" ||
				event.Data["room_session_id"] != "18446744073709551615" || event.Data["room_id"] != "lobby" {
				t.Errorf("event %s", body)
			}
		})
	}
}

// If the billing API is unavailable, the step is retried. The ledger has the bill already.
func TestBillingAPIAway(t *testing.T) {
	api := httptest.NewServer(http.NotFoundHandler())
	api.Close()
	l := sqlite(t)
	billing := &steps.Billing{Ledger: l, API: activities.Endpoint{Name: "the billing API", URL: api.URL + "?key=hunter2"}}
	_, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill)
	var app *temporal.ApplicationError
	if err == nil || errors.As(err, &app) && app.NonRetryable() {
		t.Errorf("error %v, want one to retry", err)
	}
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows a secret: %v", err)
	}
	if _, err := l.Bill(t.Context(), session.ID{AppID: 1, RoomSessionID: math.MaxUint64}); err != nil {
		t.Error(err)
	}
}

const folder = "1/18446744073709551615/"

// buckets runs a test with buckets in memory, and with folders.
func buckets(t *testing.T, test func(t *testing.T, r *steps.Recordings)) {
	t.Run("memory", func(t *testing.T) {
		test(t, &steps.Recordings{Source: memblob.OpenBucket(nil), Archive: memblob.OpenBucket(nil)})
	})
	t.Run("folders", func(t *testing.T) {
		open := func(options string) *blob.Bucket {
			b, err := archive.OpenBucket(t.Context(), "file://"+filepath.ToSlash(t.TempDir())+options)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			return b
		}
		// The archive stores no checksums.
		test(t, &steps.Recordings{Source: open(""), Archive: open("")})
	})
}

func put(t *testing.T, b *blob.Bucket, key string, content []byte) {
	t.Helper()
	if err := b.WriteAll(t.Context(), key, content, nil); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, b *blob.Bucket, key string) []byte {
	t.Helper()
	content, err := b.ReadAll(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestArchiveRecordings(t *testing.T) {
	buckets(t, func(t *testing.T, r *steps.Recordings) {
		large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // several times the copy buffer
		put(t, r.Source, folder+"b_V.mp4", large)
		put(t, r.Source, folder+"a/a_A.aac", []byte("audio"))
		put(t, r.Source, folder+"empty.txt", nil)
		put(t, r.Source, "1/1844674407370955161/of another session", []byte("x"))
		put(t, r.Source, "11/18446744073709551615/of another app", []byte("x"))

		done, err := run[activities.Archived](t, newEnv(), r.ArchiveRecordings)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(done, activities.Archived{Manifest: folder + "manifest.json", Files: 3, Bytes: int64(len(large)) + 5}) {
			t.Errorf("result %+v", done)
		}
		if !bytes.Equal(get(t, r.Archive, folder+"recordings/b_V.mp4"), large) {
			t.Error("the large file differs")
		}
		first := get(t, r.Archive, done.Manifest)
		var m steps.Manifest
		if err := json.Unmarshal(first, &m); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(large)
		if m.Version != 1 || m.RoomSessionID != math.MaxUint64 || m.RoomID != "lobby" || len(m.Files) != 3 ||
			m.Files[0].Name != folder+"recordings/a/a_A.aac" ||
			m.Files[1] != (steps.File{Name: folder + "recordings/b_V.mp4", Source: folder + "b_V.mp4", Size: int64(len(large)), SHA256: hex.EncodeToString(sum[:])}) {
			t.Errorf("manifest %s", first)
		}
		if !bytes.Contains(first, []byte(`"room_session_id": "18446744073709551615"`)) {
			t.Errorf("room_session_id isn't a string in %s", first)
		}

		// If there is a manifest, the step is done. It doesn't archive late files.
		put(t, r.Source, folder+"late.mp4", []byte("late"))
		again, err := run[activities.Archived](t, newEnv(), r.ArchiveRecordings)
		if err != nil || !reflect.DeepEqual(again, done) || !bytes.Equal(get(t, r.Archive, done.Manifest), first) {
			t.Errorf("again: %+v, %v", again, err)
		}
	})
}

func TestArchiveNoRecordings(t *testing.T) {
	buckets(t, func(t *testing.T, r *steps.Recordings) {
		done, err := run[activities.Archived](t, newEnv(), r.ArchiveRecordings)
		if err != nil || done.Files != 0 {
			t.Fatalf("result %+v, %v", done, err)
		}
		if m := get(t, r.Archive, done.Manifest); !bytes.Contains(m, []byte(`"files": []`)) {
			t.Errorf("manifest %s", m)
		}
	})
}

// An attempt continues where the last heartbeat of an earlier attempt was.
func TestArchiveResumes(t *testing.T) {
	buckets(t, func(t *testing.T, r *steps.Recordings) {
		put(t, r.Source, folder+"a.mp4", []byte("a recording"))
		name := folder + "recordings/a.mp4"
		mover, err := archive.NewMover(r.Source, r.Archive, archive.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var heartbeat archive.Progress
		item := archive.Item{Key: folder + "a.mp4", Name: "a.mp4", Size: 11}
		_, err = mover.Move(t.Context(), folder, archive.Manifest{}, func(context.Context) ([]archive.Item, error) { return []archive.Item{item}, nil },
			archive.Progress{}, func(p archive.Progress) { heartbeat = p })
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Archive.Delete(t.Context(), folder+"manifest.json"); err != nil {
			t.Fatal(err)
		}
		before := modified(t, r.Archive, name)
		env := newEnv()
		env.SetHeartbeatDetails(heartbeat)
		done, err := run[activities.Archived](t, env, r.ArchiveRecordings)
		if err != nil || done.Bytes != 11 || !modified(t, r.Archive, name).Equal(before) {
			t.Errorf("result %+v, error %v; copied again: %v", done, err, !modified(t, r.Archive, name).Equal(before))
		}
	})
}

// The result has links to the archived files.
func TestArchivedHasLinks(t *testing.T) {
	dir := t.TempDir()
	kept, err := archive.OpenBucket(t.Context(), "file://"+filepath.ToSlash(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	r := &steps.Recordings{Source: memblob.OpenBucket(nil), Archive: kept}
	r.Options.ArchiveURL = "file://" + filepath.ToSlash(dir)
	put(t, r.Source, folder+"a.mp4", []byte("a recording"))
	for range 2 {
		done, err := run[activities.Archived](t, newEnv(), r.ArchiveRecordings)
		if want := []string{filepath.Join(dir, folder, "manifest.json"), filepath.Join(dir, folder, "recordings", "a.mp4")}; err != nil || !slices.Equal(done.Links, want) {
			t.Errorf("links %q, want %q, error %v", done.Links, want, err)
		}
	}
}

// A fault that no retry can fix blocks the step.
func TestUnreadableManifestBlocksTheStep(t *testing.T) {
	r := &steps.Recordings{Source: memblob.OpenBucket(nil), Archive: memblob.OpenBucket(nil)}
	put(t, r.Archive, folder+"manifest.json", []byte("{"))
	if done, err := run[activities.Archived](t, newEnv(), r.ArchiveRecordings); !activities.IsBlocked(err) || !strings.Contains(err.Error(), "this version of Closeout can't read it as a manifest") {
		t.Errorf("result %+v, error %v", done, err)
	}
	r = &steps.Recordings{Source: memblob.OpenBucket(nil), Archive: memblob.OpenBucket(nil)}
	r.Options.Class = "GLACIER"
	if done, err := run[activities.Archived](t, newEnv(), r.ArchiveRecordings); !activities.IsBlocked(err) || !strings.Contains(err.Error(), "no storage classes") {
		t.Errorf("result %+v, error %v", done, err)
	}
}

func modified(t *testing.T, b *blob.Bucket, key string) time.Time {
	t.Helper()
	a, err := b.Attributes(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return a.ModTime
}

// If the worker stops, the step ends in the middle of a file and leaves no part of it.
func TestArchiveStopsWithWorker(t *testing.T) {
	buckets(t, func(t *testing.T, r *steps.Recordings) {
		put(t, r.Source, folder+"a.mp4", []byte("a recording"))
		stop := make(chan struct{})
		close(stop)
		env := newEnv()
		env.SetWorkerStopChannel(stop)
		_, err := run[activities.Archived](t, env, r.ArchiveRecordings)
		var app *temporal.ApplicationError
		if err == nil || errors.As(err, &app) && app.NonRetryable() {
			t.Errorf("error %v, want one to retry", err)
		}
		for _, key := range []string{folder + "recordings/a.mp4", folder + "manifest.json"} {
			if exists, err := r.Archive.Exists(t.Context(), key); exists || err != nil {
				t.Errorf("%s exists: %v, %v", key, exists, err)
			}
		}
	})
}

func TestBlockedIsNotRetried(t *testing.T) {
	cause := errors.New("cause")
	err := activities.Blockedf("no price for %s: %w", "lobby", cause)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || !app.NonRetryable() || !errors.Is(err, cause) || app.Message() != "no price for lobby: cause" {
		t.Errorf("got %#v", err)
	}
}
