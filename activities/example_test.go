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

// CRM has a step of one's own. A worker knows it by the method's name.
type CRM struct {
	// API is the CRM's.
	API activities.Endpoint
	// Muted rooms are of no interest to it.
	Muted map[string]bool
}

// Tell tells the CRM that a room has closed. What the API answers decides whether
// it is tried again, or a person is asked.
func (c *CRM) Tell(ctx context.Context, task activities.Task) (string, error) {
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
	fmt.Println(crm.Tell(context.Background(), task))
	tell := func(_ string, err error) {
		if failure := new(temporal.ApplicationError); errors.As(err, &failure) {
			fmt.Println(failure.Type()+":", failure.Message())
		}
	}
	tell(crm.Tell(context.Background(), task))
	tell(crm.Tell(context.Background(), task))
	tell(crm.Tell(context.Background(), activities.Task{Session: session.Session{RoomID: "test"}}))
	// Output:
	// ticket 7 <nil>
	// RetryAfter: the CRM failed: 503 Service Unavailable: busy
	// Blocked: the CRM refused it: 422 Unprocessable Entity: no such customer
	// GivenUp: room test is muted
}
