package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/internal/ledger"
)

// Billing makes a session's bill.
type Billing struct {
	// Ledger keeps the bills.
	Ledger *ledger.Ledger
	// API, if its URL is not empty, hears of each bill.
	API BillingAPI
}

// BillingAPI says where bills are posted to.
type BillingAPI struct {
	// URL takes a POST of a CloudEvents 1.0 event in JSON.
	URL string
	// Token, if not empty, is sent as a bearer token.
	Token string
	// Client sends the requests. It should not follow redirects.
	Client *http.Client
}

// Bill is what was billed for a session.
type Bill struct {
	ledger.Bill
	// Posted says that the billing API has it.
	Posted bool `json:"posted"`
}

// String says it in a few words, for people.
func (b Bill) String() string {
	if b.Posted {
		return "bill " + b.ID.String() + ", also at the billing API"
	}
	return "bill " + b.ID.String()
}

// FinalizeBill writes the session's bill to the ledger and then, if there is a
// billing API, posts it there. A repeat finds the first bill and posts the same
// one under the same Idempotency-Key.
func (b *Billing) FinalizeBill(ctx context.Context, task Task) (Bill, error) {
	s := task.Session
	bill, err := b.Ledger.Finalize(ctx, ledger.Bill{
		ID:            task.IdempotencyKey,
		AppID:         s.AppID,
		RoomID:        s.RoomID,
		RoomSessionID: s.RoomSessionID,
		CloseReason:   uint32(s.CloseReason),
		RoomCloseTime: s.RoomCloseTime,
	})
	if err != nil {
		return Bill{}, fmt.Errorf("write the bill to the ledger: %w", err)
	}
	if b.API.URL == "" {
		return Bill{Bill: bill}, nil
	}
	if err := b.API.post(ctx, bill); err != nil {
		return Bill{}, err
	}
	activity.GetLogger(ctx).Info("bill posted", "bill", bill.ID)
	return Bill{Bill: bill, Posted: true}, nil
}

// cloudEvent is a CloudEvents 1.0 event in its JSON format.
type cloudEvent struct {
	SpecVersion     string      `json:"specversion"`
	ID              string      `json:"id"`
	Source          string      `json:"source"`
	Type            string      `json:"type"`
	Subject         string      `json:"subject"`
	Time            time.Time   `json:"time"`
	DataContentType string      `json:"datacontenttype"`
	Data            ledger.Bill `json:"data"`
}

func (a BillingAPI) post(ctx context.Context, bill ledger.Bill) error {
	body, err := json.Marshal(cloudEvent{
		SpecVersion:     "1.0",
		ID:              bill.ID.String(),
		Source:          "/closeout/apps/" + strconv.FormatUint(uint64(bill.AppID), 10),
		Type:            "io.closeout.bill.finalized.v1",
		Subject:         strconv.FormatUint(bill.RoomSessionID, 10),
		Time:            bill.RoomCloseTime,
		DataContentType: "application/json",
		Data:            bill,
	})
	if err != nil {
		return Blocked("encode the bill: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.URL, bytes.NewReader(body))
	if err != nil {
		return Blocked("make a request to the billing API: %w", err)
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("Idempotency-Key", bill.ID.String())
	if a.Token != "" {
		req.Header.Set("Authorization", "Bearer "+a.Token)
	}
	resp, err := a.Client.Do(req)
	if err != nil {
		if wrapped := new(url.Error); errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL, which may hold a key
		}
		return fmt.Errorf("post the bill to the billing API: %w", err)
	}
	defer resp.Body.Close()
	// Some of the answer tells people in the Web UI what was wrong; reading it
	// also lets the connection be used again.
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 500))

	switch code := resp.StatusCode; {
	case code/100 == 2, code == http.StatusConflict:
		return nil
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		// Of the 4xx these two alone say that it is worth trying again.
	case code/100 == 4:
		return Blocked("the billing API refused the bill: %s: %q", resp.Status, said)
	}
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf("the billing API failed: %s: %q", resp.Status, said), "BillingAPI",
		temporal.ApplicationErrorOptions{NextRetryDelay: retryAfter(resp)})
}

// retryAfter is for how long the API asks to be left alone, up to an hour; 0 if
// it doesn't.
func retryAfter(resp *http.Response) time.Duration {
	seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, time.Hour)
}
