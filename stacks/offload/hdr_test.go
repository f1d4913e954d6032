// SPDX-License-Identifier: Apache-2.0

// Tests of the header's encoding against bytes written by hand.

package offload

import (
	"bytes"
	"errors"
	"testing"
)

func TestHdr(t *testing.T) {
	h := Hdr{Flags: NeedsCsum, GSOType: GSOTCPv6, HdrLen: 0x0102, GSOSize: 0x0304, CsumStart: 0x0506, CsumOffset: 0x0708}
	want := []byte{1, 4, 2, 1, 4, 3, 6, 5, 8, 7}
	b := make([]byte, HdrLen)
	h.Encode(b)
	if !bytes.Equal(b, want) {
		t.Fatalf("Encode = % x, want % x", b, want)
	}
	var got Hdr
	if err := got.Decode(b); err != nil || got != h {
		t.Fatalf("Decode = %+v, %v, want %+v", got, err, h)
	}
	if err := got.Decode(b[:HdrLen-1]); !errors.Is(err, ErrShort) {
		t.Fatalf("Decode of 9 bytes: %v, want ErrShort", err)
	}
}
