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

// printer is an intake that keeps callbacks by printing them.
type printer struct{}

func (printer) RoomClose(_ context.Context, c *zego.RoomClose) (webhook.Receipt, error) {
	fmt.Println("room", c.RoomID, "closed:", c.CloseReason)
	return webhook.Receipt{Status: webhook.Started}, nil
}

func ExampleRouter() {
	keyring, err := zego.NewKeyring(map[uint32][]string{1: {"secret"}}, 10*time.Minute, time.Now)
	if err != nil {
		fmt.Println(err)
		return
	}
	router := webhook.Router(webhook.Options{Keyring: keyring, Intake: printer{}, Log: slog.New(slog.DiscardHandler)})

	// As ZEGO would post it.
	closed := zego.RoomClose{
		Common: zego.Common{AppID: 1, Timestamp: time.Now().Unix(), Nonce: "350176"},
		RoomID: "lobby", RoomSessionID: 858012925204410417, RoomCloseTime: time.Now(),
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
