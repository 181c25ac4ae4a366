package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
)

// sample is a session with a recording, for a first callback that does something.
type sample struct {
	appID         uint32
	roomID        string
	roomSessionID uint64
}

// writeSample puts the sample's recording where ZEGO would upload it, if it isn't
// there.
func writeSample(ctx context.Context, c *config.Config) (sample, error) {
	s := sample{appID: slices.Min(slices.Collect(maps.Keys(c.Apps))), roomID: "lobby", roomSessionID: 858012925204410417}
	bucket, err := archive.OpenBucket(ctx, c.RecordingsURL)
	if err != nil {
		return s, fmt.Errorf("CLOSEOUT_RECORDINGS_URL: open the bucket: %w", err)
	}
	defer bucket.Close()
	// The name is made as ZEGO makes it: TaskId_RoomId_MixStreamId_Type_UTC.
	key := session.Session{ID: session.ID{AppID: s.appID, RoomSessionID: s.roomSessionID}}.Folder() +
		"aGp0MXZ3b3NkbGVj_" + s.roomID + "_mix_A_20261123120000000.wav"
	switch exists, err := bucket.Exists(ctx, key); {
	case err != nil:
		return s, fmt.Errorf("look for the sample recording: %w", err)
	case exists:
		return s, nil
	}
	if err := bucket.WriteAll(ctx, key, tone(), &blob.WriterOptions{ContentType: "audio/wav"}); err != nil {
		return s, fmt.Errorf("write the sample recording: %w", err)
	}
	return s, nil
}

// tone is a second of a quiet A, as a WAV file.
func tone() []byte {
	const rate, seconds = 8000, 1
	var b []byte
	le := binary.LittleEndian
	b = append(b, "RIFF"...)
	b = le.AppendUint32(b, 36+2*rate*seconds)
	b = append(b, "WAVEfmt "...)
	b = le.AppendUint32(b, 16)     // of the format
	b = le.AppendUint16(b, 1)      // PCM
	b = le.AppendUint16(b, 1)      // channel
	b = le.AppendUint32(b, rate)   // samples a second
	b = le.AppendUint32(b, 2*rate) // bytes a second
	b = le.AppendUint16(b, 2)      // bytes a sample
	b = le.AppendUint16(b, 16)     // bits a sample
	b = append(b, "data"...)
	b = le.AppendUint32(b, 2*rate*seconds)
	for i := range rate * seconds {
		b = le.AppendUint16(b, uint16(int16(3000*math.Sin(2*math.Pi*440*float64(i)/rate))))
	}
	return b
}

// callbackPath is where callbacks are taken, with the token left to the shell.
func callbackPath(c *config.Config) string {
	if c.CallbackToken == "" {
		return webhook.Path
	}
	return webhook.Path + "/$CLOSEOUT_CALLBACK_TOKEN"
}
