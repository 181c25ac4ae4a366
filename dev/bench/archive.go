//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	_ "gocloud.dev/blob/s3blob" // s3:// buckets

	"github.com/closeouthq/closeout/internal/archive"
)

// The tools and the store to compare with. Both are built where the benchmark runs.
const (
	rclone    = "github.com/rclone/rclone@v1.76.0"
	versitygw = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
)

// transfers is the number of objects that both copy at once.
const transfers = archive.DefaultTransfers

// measureArchive copies files from a folder to a folder and to S3, side by side with
// `rclone copy --checksum`. Both times end when the data is on disk.
func measureArchive(ctx context.Context, b *bench) error {
	b.table("archive, MB/s\tcloseout\trclone\tratio")
	if err := compareArchives(ctx, b.row, b.dir); err != nil {
		return err
	}
	return b.flush()
}

func compareArchives(ctx context.Context, row func(format string, args ...any), dir string) error {
	dir, err := os.MkdirTemp(dir, "archive-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tools, err := installTools(ctx, dir)
	if err != nil {
		return err
	}
	store, err := startStore(ctx, filepath.Join(tools, "versitygw"), filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	defer store.stop()
	for _, load := range []struct {
		name  string
		files int
		size  int64
	}{{"1,000 files of 1 MB", 1000, 1e6}, {"4 files of 1 GB", 4, 1e9}} {
		from := filepath.Join(dir, "recordings")
		if err := generate(filepath.Join(from, "1", "1"), load.files, load.size); err != nil {
			return err
		}
		for _, to := range []string{"folder", "S3"} {
			figures := series{}
			for round := range rounds {
				movers := []struct {
					name string
					move func() error
				}{
					{"closeout", func() error { return moveByCloseout(ctx, from, store.target(to, dir)) }},
					{"rclone", func() error { return store.moveByRclone(ctx, filepath.Join(tools, "rclone"), from, to, dir) }},
				}
				if round%2 == 1 {
					movers[0], movers[1] = movers[1], movers[0]
				}
				for _, m := range movers {
					if err := store.empty(ctx, dir); err != nil {
						return err
					}
					began := time.Now()
					if err := m.move(); err != nil {
						return fmt.Errorf("%s: %w", m.name, err)
					}
					if text, err := exec.CommandContext(ctx, "sync", "-f", dir).CombinedOutput(); err != nil {
						return fmt.Errorf("sync: %w: %s", err, text)
					}
					figures.add(m.name, float64(load.files)*float64(load.size)/1e6/time.Since(began).Seconds())
				}
			}
			row("%s, folder to %s\t%.0f\t%.0f\t%.2f",
				load.name, to, median(figures["closeout"]), median(figures["rclone"]), figures.ratio("closeout", "rclone"))
		}
		if err := errors.Join(os.RemoveAll(from), store.empty(ctx, dir)); err != nil {
			return err
		}
	}
	return nil
}

// installTools builds the tools that the folder CLOSEOUT_BENCH_TOOLS lacks.
func installTools(ctx context.Context, dir string) (string, error) {
	tools := cmp.Or(os.Getenv("CLOSEOUT_BENCH_TOOLS"), filepath.Join(dir, "tools"))
	for name, module := range map[string]string{"rclone": rclone, "versitygw": versitygw} {
		if _, err := os.Stat(filepath.Join(tools, name)); err == nil {
			continue
		}
		cmd := exec.CommandContext(ctx, "go", "install", module)
		cmd.Env = append(os.Environ(), "GOBIN="+tools)
		if text, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", module, err, text)
		}
	}
	return tools, nil
}

// generate writes incompressible files.
func generate(dir string, files int, size int64) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for i := range files {
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)+".mp4"))
		if err != nil {
			return err
		}
		_, err = io.CopyN(f, rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}), size)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func fileURL(dir string) string { return "file://" + dir + "?create_dir=true" }

// moveByCloseout copies as a worker does.
func moveByCloseout(ctx context.Context, from, to string) error {
	source, err := archive.OpenBucket(ctx, fileURL(from))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := archive.OpenBucket(ctx, to)
	if err != nil {
		return err
	}
	defer target.Close()
	mover, err := archive.NewMover(source, target, archive.Options{SourceURL: fileURL(from), ArchiveURL: to, Transfers: transfers})
	if err != nil {
		return err
	}
	_, err = mover.Move(ctx, "1/1/", archive.Manifest{AppID: 1, RoomSessionID: 1}, func(ctx context.Context) (items []archive.Item, err error) {
		for list := source.List(nil); ; {
			o, err := list.Next(ctx)
			if errors.Is(err, io.EOF) {
				return items, nil
			}
			if err != nil {
				return nil, err
			}
			items = append(items, archive.Item{Key: o.Key, Size: o.Size})
		}
	}, archive.Progress{}, nil)
	return err
}

// store is a running versitygw.
type store struct {
	address string
	process *exec.Cmd
}

func startStore(ctx context.Context, program, dir string) (*store, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &store{address: l.Addr().String()}
	_ = l.Close()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "benchsecret"} {
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	s.process = exec.CommandContext(ctx, program, "--port", s.address, "--access", "bench", "--secret", "benchsecret", "--quiet", "posix", dir)
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + s.address)
		if err == nil {
			_ = resp.Body.Close()
			return s, nil
		}
		if time.Now().After(end) {
			s.stop()
			return nil, err
		}
	}
}

func (s *store) stop() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// target returns the URL of the destination bucket.
func (s *store) target(to, dir string) string {
	if to == "folder" {
		return fileURL(filepath.Join(dir, "target"))
	}
	return "s3://target?region=us-east-1&use_path_style=true&endpoint=" + url.QueryEscape("http://"+s.address)
}

// empty removes the files from both destinations.
func (s *store) empty(ctx context.Context, dir string) error {
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "target")), os.RemoveAll(filepath.Join(dir, "store", "target"))); err != nil {
		return err
	}
	bucket, err := archive.OpenBucket(ctx, s.target("S3", dir))
	if err != nil {
		return err
	}
	defer bucket.Close()
	var client *s3.Client
	name := "target"
	if bucket.As(&client) {
		_, err = client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name})
	}
	return err
}

func (s *store) moveByRclone(ctx context.Context, program, from, to, dir string) error {
	target := filepath.Join(dir, "target")
	if to != "folder" {
		target = "store:target"
	}
	cmd := exec.CommandContext(ctx, program, "copy", "--checksum", "--transfers", strconv.Itoa(transfers), "--config", "/dev/null", from, target)
	cmd.Env = append(os.Environ(), "RCLONE_CONFIG_STORE_TYPE=s3", "RCLONE_CONFIG_STORE_PROVIDER=Other", "RCLONE_CONFIG_STORE_ENV_AUTH=true",
		"RCLONE_CONFIG_STORE_ENDPOINT=http://"+s.address, "RCLONE_CONFIG_STORE_REGION=us-east-1")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}
