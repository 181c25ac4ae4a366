package archive

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
)

// Warnings of the S3 client are written to the program's log.
func TestStoreClientUsesOurLog(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	defer slog.SetDefault(before)
	slog.SetDefault(slog.New(slog.NewJSONHandler(&out, nil)))
	o := &s3.Options{}
	logPlainly(o)
	o.Logger.Logf(logging.Debug, "chat")
	o.Logger.Logf(logging.Warn, "Response has no supported %s", "checksum")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["message"] != "Response has no supported checksum" {
		t.Errorf("%v: %s", err, &out)
	}
}
