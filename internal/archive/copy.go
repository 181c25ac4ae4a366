package archive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5" // #nosec G501 -- the checksum that some stores keep.
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"time"
)

// Metadata of an object in the archive.
const (
	metaSource = "closeout-source" // the mark of its source
	metaSHA256 = "closeout-sha256" // of its content, if known in time
)

const (
	readSize = 1 << 20
	maxTries = 3 // copies of an object per attempt
)

// stallTimeout bounds the time without progress of a copy.
var stallTimeout = 5 * time.Minute

var (
	errStalled = errors.New("no progress for minutes")
	errDiffers = errors.New("the archive has something else than was read")
	errChanged = errors.New("it changed while it was copied")
)

// transfer moves one item.
type transfer struct {
	*run
	source source
	item   Item
	timer  *time.Timer // of a stall
	bytes  int64       // counted as moved
}

// alive postpones the stall.
func (t *transfer) alive(int64) { t.timer.Reset(stallTimeout) }

// count records that n bytes were moved.
func (t *transfer) count(n int64) {
	t.alive(n)
	t.bytes += n
	t.wrote(n)
}

// move copies the item to the wanted name, unless the archive has it.
func (r *run) move(ctx context.Context, src source, item Item, want File) (File, state, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := &transfer{run: r, source: src, item: item, timer: time.AfterFunc(stallTimeout, func() { cancel(errStalled) })}
	defer t.timer.Stop()
	for try := 1; ; try++ {
		file, st, err := t.try(ctx, try, want)
		switch {
		case err == nil:
			r.finish(Finished{file.Name, st.mark(src), file.Size, file.SHA256})
			return file, st, nil
		case context.Cause(ctx) != nil:
			return File{}, state{}, context.Cause(ctx)
		case try == maxTries || !errors.Is(err, errDiffers) && !errors.Is(err, errChanged):
			return File{}, state{}, err
		}
		t.again()
	}
}

// again uncounts the bytes.
func (t *transfer) again() {
	t.wrote(-t.bytes)
	t.bytes = 0
}

func (t *transfer) try(ctx context.Context, try int, want File) (File, state, error) {
	src := t.source
	st, err := src.stat(ctx)
	if err != nil {
		return File{}, st, err
	}
	if t.item.Size > 0 && t.item.Size != st.size {
		return File{}, st, fmt.Errorf("it has %d bytes, and should have %d", st.size, t.item.Size)
	}
	if _, ok := src.(*remote); ok && try == 1 {
		if st.size > maxURLFile {
			return File{}, st, fmt.Errorf("%w: it has %d bytes, want at most %d", ErrImpossible, st.size, int64(maxURLFile))
		}
		if total := t.fromURLs.Add(st.size); total > maxURLSession {
			return File{}, st, fmt.Errorf("%w: the files read by URL have %d bytes together, want at most %d", ErrImpossible, total, int64(maxURLSession))
		}
	}
	want.Size = st.size
	if there, err := t.found(ctx, st, &want); there || err != nil {
		return want, st, err
	}

	sums := t.store.sums()
	content := &content{source: src, state: st, sums: sums, meta: map[string]string{metaSource: st.mark(src)}, alive: t.alive,
		reader: &steady{ctx: ctx, source: src, size: st.size, to: sums, count: t.count}}
	defer content.reader.Close()
	if err := t.store.put(ctx, want.Name, content); err != nil {
		return File{}, st, fmt.Errorf("copy it: %w", err)
	}
	switch now, err := src.stat(ctx); {
	case err != nil:
		return File{}, st, err
	case now.mark(src) != st.mark(src):
		t.discard(ctx, want.Name)
		return File{}, st, fmt.Errorf("%w: it had %d bytes, and then %d", errChanged, st.size, now.size)
	}
	want.SHA256 = sums.hex()
	if err := t.verify(ctx, want, sums); err != nil {
		if errors.Is(err, errDiffers) {
			t.discard(ctx, want.Name)
		}
		return File{}, st, err
	}
	if t.Observe != nil {
		t.Observe(want.Size)
	}
	return want, st, nil
}

// discard removes a wrong object. If that fails, the next attempt replaces it.
func (r *run) discard(ctx context.Context, name string) { _ = r.Archive.Delete(ctx, name) }

// found reports whether the archive has a complete copy of the source in this state. It sets the
// file's checksum.
func (t *transfer) found(ctx context.Context, st state, want *File) (bool, error) {
	mark := st.mark(t.source)
	kept, err := t.store.look(ctx, want.Name)
	if errors.Is(err, errNone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s in the archive: %w", want.Name, err)
	}
	if f := t.earlier[want.Name]; kept.size == st.size && f.Size == st.size && f.Mark == mark && (kept.mark == "" || kept.mark == mark) {
		want.SHA256 = f.SHA256
		t.count(st.size)
		return true, nil
	}
	if kept.size == st.size && kept.mark == mark {
		sums := t.store.sums()
		if err := t.readBack(ctx, want.Name, sums, t.count); err == nil && kept.agrees(sums) {
			want.SHA256 = sums.hex()
			return true, nil
		}
		t.again()
	}
	// The object has another source or is incomplete. If there is a manifest by now, it may
	// list the object.
	if _, err := Read(ctx, t.Archive, t.manifest); !errors.Is(err, ErrNone) {
		if err == nil {
			err = errComplete
		}
		return false, err
	}
	return false, nil
}

// verify compares the object in the archive with the content read.
func (t *transfer) verify(ctx context.Context, want File, sums *sums) error {
	kept, err := t.store.look(ctx, want.Name)
	if err != nil {
		return fmt.Errorf("look at %s in the archive: %w", want.Name, err)
	}
	if kept.size != want.Size {
		return fmt.Errorf("%w: it was read with %d bytes and archived with %d", errDiffers, want.Size, kept.size)
	}
	if kept.own && kept.agrees(sums) {
		return nil
	}
	// The store has no checksum of the content. S3 has none for objects encrypted with a
	// customer's key.
	read := t.store.sums()
	if err := t.readBack(ctx, want.Name, read, t.alive); err != nil {
		return err
	}
	if sum := read.hex(); sum != want.SHA256 {
		return fmt.Errorf("%w: its checksum is %s, and %s in the archive", errDiffers, want.SHA256, sum)
	}
	return nil
}

// readBack computes the checksums of an object in the archive.
func (r *run) readBack(ctx context.Context, name string, sums *sums, count func(int64)) error {
	if err := r.sum(ctx, &object{r.Archive, name}, sums, count); err != nil {
		return fmt.Errorf("read %s in the archive, to check it: %w", name, err)
	}
	return nil
}

// sum computes the checksums of an object.
func (m *Mover) sum(ctx context.Context, o *object, sums *sums, count func(int64)) error {
	if count == nil {
		count = func(int64) {}
	}
	from := &steady{ctx: ctx, source: o, size: -1, to: sums, count: count}
	defer from.Close()
	buffer := m.buffers.Get().(*[]byte)
	defer m.buffers.Put(buffer)
	for {
		if _, err := from.Read(*buffer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// content is an object to put into the archive.
type content struct {
	source source
	state  state
	sums   *sums
	meta   map[string]string
	reader *steady
	alive  func(int64) // called by long operations
}

// sums computes checksums of content: SHA-256 and those that the archive's store supports.
type sums struct {
	sha256, md5 hash.Hash
	crc64       hash.Hash64
}

// nvme is the table of CRC-64/NVME, S3's checksum of multipart uploads.
var nvme = crc64.MakeTable(0x9a6c9329ac4bc9b5)

// Write implements [io.Writer].
func (s *sums) Write(p []byte) (int, error) {
	for _, h := range []hash.Hash{s.sha256, s.md5, s.crc64} {
		if h != nil {
			_, _ = h.Write(p)
		}
	}
	return len(p), nil
}

func (s *sums) hex() string { return hex.EncodeToString(s.sha256.Sum(nil)) }

func (s *sums) reset() {
	for _, h := range []hash.Hash{s.sha256, s.md5, s.crc64} {
		if h != nil {
			h.Reset()
		}
	}
}

// kept describes an object in the archive.
type kept struct {
	size               int64
	mark               string // of the source
	sha256, md5, crc64 []byte // checksums of the content; nil if unknown
	own                bool   // whether the store computed them
}

// agrees compares the strongest checksum that both have.
func (k kept) agrees(s *sums) bool {
	switch {
	case k.sha256 != nil:
		return bytes.Equal(k.sha256, s.sha256.Sum(nil))
	case k.crc64 != nil && s.crc64 != nil:
		return bytes.Equal(k.crc64, s.crc64.Sum(nil))
	case k.md5 != nil && s.md5 != nil:
		return bytes.Equal(k.md5, s.md5.Sum(nil))
	}
	return false
}

// steady reads a source to its end and resumes after interrupted connections. It computes
// checksums and counts bytes.
type steady struct {
	ctx    context.Context
	source source
	size   int64 // -1 if unknown
	to     *sums
	count  func(int64)

	body io.ReadCloser
	read int64
	cuts int // in a row
	pace *paced
}

// sourceError is an error of the source, which may be in the same store as the archive.
type sourceError struct{ error }

func (e sourceError) Unwrap() error { return e.error }

// Read implements [io.Reader].
func (s *steady) Read(p []byte) (int, error) {
	for {
		if err := context.Cause(s.ctx); err != nil {
			return 0, err
		}
		n, err := s.once(p)
		if s.size >= 0 && s.read+int64(n) > s.size {
			if s.pace == nil {
				return 0, fmt.Errorf("%w: it had %d bytes, and has more", errChanged, s.size)
			}
			return 0, errMore
		}
		if n > 0 {
			s.cuts = 0
			s.read += int64(n)
			_, _ = s.to.Write(p[:n])
			s.count(int64(n))
			return n, nil
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF) && (s.size < 0 || s.read >= s.size):
			return 0, io.EOF
		case errors.Is(err, errSlow):
			return 0, err
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		s.Close()
		if s.cuts++; s.cuts > 4 {
			return 0, sourceError{fmt.Errorf("read it, at byte %d: %w", s.read, err)}
		}
		select {
		case <-s.ctx.Done():
		case <-time.After(time.Duration(s.cuts*s.cuts) * 100 * time.Millisecond):
		}
	}
}

// rewind starts over from the beginning.
func (s *steady) rewind() {
	s.Close()
	s.count(-s.read)
	s.read, s.cuts = 0, 0
	s.to.reset()
}

// once opens the source if necessary and reads.
func (s *steady) once(p []byte) (int, error) {
	if s.body == nil {
		if _, ok := s.source.(*remote); ok && s.pace == nil {
			s.pace = &paced{}
		}
		begun := time.Now()
		body, err := s.source.open(s.ctx, s.read)
		if s.pace != nil {
			// The new connection inherits the time waited, so that a server gains nothing by interrupting.
			s.pace = &paced{ReadCloser: body, waited: s.pace.waited + time.Since(begun), bytes: s.pace.bytes}
			if err != nil {
				return 0, cmp.Or(s.pace.tooSlow(), err)
			}
			body = s.pace
		}
		if err != nil {
			return 0, err
		}
		s.body = body
	}
	n, err := s.body.Read(p)
	if n > 0 {
		return n, nil // the next call returns the error
	}
	return 0, err
}

// Close closes the source. Read opens it again.
func (s *steady) Close() {
	if s.body != nil {
		_ = s.body.Close()
		s.body = nil
	}
}

func newMD5() hash.Hash { return md5.New() } // #nosec G401
