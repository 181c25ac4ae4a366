package activities_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
)

// CRM has a step of your own. Its Activity type is the name of the method.
type CRM struct {
	// API is the API of the CRM.
	API activities.Endpoint
	// Muted lists the rooms that the CRM ignores.
	Muted map[string]bool
}

// Notify reports a closed room to the CRM. The API's answer decides whether the step is
// retried or blocked.
func (c *CRM) Notify(ctx context.Context, task activities.Task) (string, error) {
	if c.Muted[task.Session.RoomID] {
		return "", activities.GiveUpf("room %s is muted", task.Session.RoomID)
	}
	var ticket struct {
		Number int `json:"number"`
	}
	err := c.API.Post(ctx, task.IdempotencyKey, map[string]string{"room": task.Session.RoomID}, &ticket)
	return fmt.Sprintf("ticket %d", ticket.Number), err
}

// A step that posts to an HTTP API.
func Example() {
	answers := []string{`{"number": 7}`, "busy", "no such customer"}
	status := []int{http.StatusOK, http.StatusServiceUnavailable, http.StatusUnprocessableEntity}
	asked := 0
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(status[asked])
		fmt.Fprint(w, answers[asked])
		asked++
	}))
	defer api.Close()

	crm := &CRM{API: activities.Endpoint{Name: "the CRM", URL: api.URL}, Muted: map[string]bool{"test": true}}
	task := activities.Task{Session: session.Session{RoomID: "lobby"}, IdempotencyKey: uuid.New()}
	fmt.Println(crm.Notify(context.Background(), task))
	show := func(_ string, err error) {
		if failure := new(temporal.ApplicationError); errors.As(err, &failure) {
			fmt.Println(failure.Type()+":", failure.Message())
		}
	}
	show(crm.Notify(context.Background(), task))
	show(crm.Notify(context.Background(), task))
	show(crm.Notify(context.Background(), activities.Task{Session: session.Session{RoomID: "test"}}))
	// Output:
	// ticket 7 <nil>
	// RetryAfter: the CRM failed: 503 Service Unavailable: busy
	// Blocked: the CRM refused it: 422 Unprocessable Entity: no such customer
	// GivenUp: room test is muted
}
