// SPDX-License-Identifier: Apache-2.0

// Frames on a stream of bytes, as vde_plug speaks it on its standard input and output.

package vde

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Each frame follows its length in two bytes, most significant first. A length of zero
// stands for nothing.
const lengthLen = 2

// errOutOfStep says that a stream is not, or no longer, one of frames: there is no way
// to find the next one.
var errOutOfStep = errors.New("what it writes are not frames of VDE")

// A decoder reads frames from a stream, whichever way that is cut. The memory grows to
// some chunk that the stream gives at once.
type decoder struct {
	r     io.Reader
	buf   []byte
	start int // of what is not yet decoded in buf
}

// decoderSize is how much is read at once, bytes: what a pipe holds.
const decoderSize = 64 << 10

func newDecoder(r io.Reader) *decoder {
	return &decoder{r: r, buf: make([]byte, 0, decoderSize+lengthLen+maxFrame)}
}

// read waits for at least one frame and returns those that are there, up to max. They
// are valid until the next call. The error is the reader's, io.ErrUnexpectedEOF where
// it ends within a frame, or errOutOfStep.
func (d *decoder) read(frames [][]byte, max int) ([][]byte, error) {
	frames = frames[:0]
	for {
		for len(frames) < max {
			f, ok, err := d.next()
			if err != nil {
				return frames, err
			}
			if !ok {
				break
			}
			if len(f) >= etherLen {
				frames = append(frames, f)
			}
		}
		if len(frames) > 0 {
			return frames, nil
		}
		// What is left is less than a frame: it moves to the front.
		n := copy(d.buf[:cap(d.buf)], d.buf[d.start:])
		d.buf, d.start = d.buf[:n], 0
		k, err := d.r.Read(d.buf[n:min(n+decoderSize, cap(d.buf))])
		d.buf = d.buf[:n+k]
		if k > 0 {
			continue
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		if err == io.EOF && n > 0 {
			err = io.ErrUnexpectedEOF
		}
		return frames, err
	}
}

// next takes a frame that is there whole.
func (d *decoder) next() (f []byte, ok bool, err error) {
	b := d.buf[d.start:]
	if len(b) < lengthLen {
		return nil, false, nil
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > maxFrame {
		return nil, false, fmt.Errorf("%w: a frame of %d bytes", errOutOfStep, n)
	}
	if len(b) < lengthLen+n {
		return nil, false, nil
	}
	d.start += lengthLen + n
	return b[lengthLen : lengthLen+n], true, nil
}

// appendFrame appends a frame with its length to b.
func appendFrame(b, f []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(f))), f...)
}
