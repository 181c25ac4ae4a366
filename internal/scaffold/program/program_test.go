package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/workflows"
)

func TestProgramCanBeRun(t *testing.T) {
	if err := service().Check(); err != nil {
		t.Error(err)
	}
}

func TestRefusedNotificationWaitsForAnOperator(t *testing.T) {
	env := closeouttest.NewEnv(t, &Notifier{})
	env.MockStandard()
	env.OnActivity(notifier.Notify, mock.Anything, mock.Anything).Return("", activities.Blockedf("no such room")).Once()
	env.OnActivity(notifier.Notify, mock.Anything, mock.Anything).Return("notified", nil).Once()
	env.After(time.Hour, func() { env.Retry("notify", "the room was added") })

	if r := env.Run(CloseRoom, closeouttest.Session()); r.State != workflows.StateDone {
		t.Errorf("result %+v", r)
	}
	env.AssertExpectations(t)
}

func TestNotifyPostsTheSession(t *testing.T) {
	var key, body string
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		key, body = r.Header.Get("Idempotency-Key"), string(b)
	}))
	defer api.Close()
	closed := closeouttest.Session()
	task := activities.Task{Session: closed, IdempotencyKey: closed.IdempotencyKey("notify")}

	said, err := (&Notifier{API: activities.Endpoint{Name: "the notified API", URL: api.URL}}).Notify(t.Context(), task)
	if err != nil || said != "notified" || key != task.IdempotencyKey.String() || !strings.Contains(body, closed.ID.String()[2:]) {
		t.Errorf("%q, %v: posted %s with key %s", said, err, body, key)
	}
}
