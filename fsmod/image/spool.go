// SPDX-License-Identifier: Apache-2.0

// What can be read from its beginning only, made readable anywhere.

package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	spoolMemory = 256 << 10 // up to how many bytes are kept in memory
	spoolChunk  = 64 << 10
	maxSparse   = 1 << 40 // bytes of what has holes
)

// A spool is a File of size bytes that a stream gives, which is read as far as somebody
// wants to.
type spool struct {
	size int64

	mu     sync.Mutex
	src    io.ReadCloser // guarded by mu, as are the rest
	have   int64
	memory []byte
	chunk  []byte   // the last that was read
	file   *os.File // nil: in memory
	err    error
}

func newSpool(src io.ReadCloser, size int64) (*spool, error) {
	s := &spool{size: size, src: src}
	if size > spoolMemory {
		f, err := temporary()
		if err != nil {
			return nil, errors.Join(err, src.Close())
		}
		s.file = f
	}
	return s, nil
}

// temporary makes a file without a name, in TMPDIR.
func temporary() (*os.File, error) {
	dir := os.TempDir()
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir), nil
	}
	f, err := os.CreateTemp(dir, "umrun-image-") // a file system without O_TMPFILE
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	if off >= s.size {
		return 0, io.EOF
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	end := min(s.size, off+int64(len(p)))
	for s.have < end && s.err == nil {
		s.err = s.more()
	}
	if s.have < end {
		return 0, s.err
	}
	p = p[:end-off]
	if s.file == nil {
		copy(p, s.memory[off:])
	} else {
		n, err := s.file.ReadAt(p, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		clear(p[n:]) // the zeros at the end, which were not written
	}
	if end == s.size {
		return len(p), io.EOF
	}
	return len(p), nil
}

var zeros [spoolChunk]byte

// more takes a chunk from the stream.
func (s *spool) more() error {
	if s.chunk == nil {
		s.chunk = make([]byte, max(1, min(spoolChunk, s.size)))
	}
	b := s.chunk[:min(spoolChunk, s.size-s.have)]
	if n, err := io.ReadFull(s.src, b); err != nil {
		return corrupt("content ends after %d of %d bytes: %v", s.have+int64(n), s.size, err)
	}
	if s.file == nil {
		s.memory = append(s.memory, b...)
	} else if !bytes.Equal(b, zeros[:len(b)]) {
		if _, err := s.file.WriteAt(b, s.have); err != nil {
			return fmt.Errorf("temporary file: %w", err)
		}
	}
	if s.have += int64(len(b)); s.have == s.size { // the check sum, if there is one
		if n, err := s.src.Read(s.chunk[:1]); n != 0 || err != nil && !errors.Is(err, io.EOF) {
			s.have = 0
			return corrupt("content: %v, %d bytes more than said", err, n)
		}
	}
	return nil
}

func (s *spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.src.Close() // repeats what reads said
	s.err, s.have = unix.EBADF, 0
	if s.file != nil {
		return s.file.Close()
	}
	return nil
}

// section is a File that is a piece of the image.
type section struct{ *io.SectionReader }

func (section) Close() error { return nil }
