package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// printer is a receiver that prints callbacks.
type printer struct{}

func (printer) Receive(_ context.Context, event zego.Event) (webhook.Receipt, error) {
	switch e := event.(type) {
	case *zego.RoomClose:
		fmt.Println("room", e.RoomID, "closed:", zego.CloseReasonText(e.CloseReason))
		return webhook.Receipt{Status: webhook.Started}, nil
	default:
		return webhook.Receipt{Status: webhook.Ignored}, nil
	}
}

func ExampleRouter() {
	keyring, err := zego.NewKeyring(map[uint32][]string{1: {"secret"}}, 10*time.Minute, time.Now)
	if err != nil {
		fmt.Println(err)
		return
	}
	router := webhook.Router(webhook.Options{Keyring: keyring, Receiver: printer{}, Log: slog.New(slog.DiscardHandler)})

	// Post a callback as ZEGO does.
	closed := zego.RoomClose{
		Common: zego.Common{AppID: 1, Timestamp: time.Now().Unix(), Nonce: "350176"},
		RoomID: "lobby", RoomSessionID: 858012925204410417, CloseReason: zego.CloseNormal, RoomCloseTime: time.Now(),
	}
	closed.Signature = zego.Sign("secret", closed.Timestamp, closed.Nonce)
	body, _ := json.Marshal(closed)
	answer := httptest.NewRecorder()
	router.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, webhook.Path, strings.NewReader(string(body))))
	fmt.Print(answer.Code, " ", answer.Body)
	// Output:
	// room lobby closed: normal
	// 200 {"status":"started"}
}
