package send

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"

	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Record writes a sample recording of a room to the session's folder in a bucket, where ZEGO would upload it, and
// returns the callback about it. The file is there before anything waits for it.
func Record(ctx context.Context, bucket *blob.Bucket, closed zego.RoomClose) (*zego.Recording, error) {
	task := fmt.Sprintf("%016x", closed.RoomSessionID) // one for each session
	begin := closed.RoomCloseTime.UTC().Truncate(time.Millisecond).Add(-roomLife / 2)
	room := strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '-' {
			return r
		}
		return '_'
	}, closed.RoomID)
	name := task + "_" + room[:min(len(room), 128)] + "_mix_A_" + strings.ReplaceAll(begin.Format("20060102150405.000"), ".", "") + ".wav"
	sound := tone()
	if err := bucket.WriteAll(ctx, session.Of(&closed).Folder()+name, sound,
		&blob.WriterOptions{ContentType: "audio/wav"}); err != nil {
		return nil, err
	}
	return &zego.Recording{Common: zego.Common{Event: zego.EventRecording, AppID: closed.AppID}, TaskID: task, RoomID: closed.RoomID,
		EventType: zego.RecordingUploaded, Files: []zego.RecordedFile{{FileID: name, Format: "wav", Size: int64(len(sound)), Duration: time.Second,
			UserID: "mix", StreamID: "mix", Begin: begin, MediaTrackType: 1, Status: zego.FileUploaded}}}, nil
}

// tone returns a second of a quiet A, as a WAV file.
func tone() []byte {
	const rate, seconds = 8000, 1
	var b []byte
	le := binary.LittleEndian
	b = append(b, "RIFF"...)
	b = le.AppendUint32(b, 36+2*rate*seconds)
	b = append(b, "WAVEfmt "...)
	b = le.AppendUint32(b, 16)     // length of the format
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
