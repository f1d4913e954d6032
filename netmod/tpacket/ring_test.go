// SPDX-License-Identifier: Apache-2.0

// Rings without a kernel: what testdata/targets/packetring.c cannot reach. That
// program holds them against the kernel.

package tpacket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// request encodes a struct tpacket_req3.
func request(words ...uint32) []byte {
	var b []byte
	for _, w := range append(words, make([]uint32, 7-len(words))...) {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

func TestDecode(t *testing.T) {
	for _, tc := range []struct {
		name             string
		version, reserve int
		in               []byte
		want             error
	}{
		{"v2", V2, 0, request(4096, 2, 2048, 4), nil},
		{"v3", V3, 0, request(4096, 2, 2048, 4, 60), nil},
		{"v2, 16 bytes", V2, 0, request(4096, 2, 2048, 4)[:16], nil},
		{"v3, 16 bytes", V3, 0, request(4096, 2, 2048, 4)[:16], unix.EINVAL},
		{"nothing", V1, 0, nil, unix.EINVAL},
		{"too large", V2, 0, request(1<<20, 1025, 1<<20, 1025), unix.ENOMEM},
		{"a number of blocks that overflows", V2, 0, request(0x7ffff000, math.MaxUint32, 0x7ffff000, math.MaxUint32), unix.ENOMEM},
		{"a private area that overflows", V3, 0, request(4096, 2, 2048, 4, 60, math.MaxUint32), unix.EINVAL},
		{"a reserve that overflows", V2, math.MaxInt32, request(4096, 2, 2048, 4), unix.EINVAL},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Decode(tc.version, tc.reserve, tc.in); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func newTestRing(t *testing.T, version int, words ...uint32) *Ring {
	t.Helper()
	q, err := Decode(version, 0, request(words...))
	if err != nil {
		t.Fatal(err)
	}
	return New(q, make([]byte, q.Size()), time.Unix(100, 0))
}

func packet(data []byte) *Packet {
	return &Packet{Data: data, Len: len(data), Cooked: true, Name: make([]byte, unix.SizeofSockaddrLinklayer), Stamp: 100e9 + 5}
}

// TestExpire: a block is handed over when its time has come and it has a packet, and
// not before.
func TestExpire(t *testing.T) {
	r := newTestRing(t, V3, 4096, 2, 2048, 4, 60)
	start := time.Unix(100, 0)
	if _, ok := r.Deadline(start); ok || r.Expire(start) {
		t.Error("an empty block has a deadline")
	}
	if ok, wake := r.Add(packet([]byte("a"))); !ok || wake || r.Pending() {
		t.Errorf("added %t, wake %t, pending %t", ok, wake, r.Pending())
	}
	for _, tc := range []struct{ now, want time.Duration }{
		{0, 60}, {59, 60}, {60, 120}, {130, 180},
	} {
		at, ok := r.Deadline(start.Add(tc.now * time.Millisecond))
		if want := start.Add(tc.want * time.Millisecond); !ok || !at.Equal(want) {
			t.Errorf("after %d ms: deadline %v %t, want %v", tc.now, at, ok, want)
		}
	}
	if !r.Expire(start.Add(60*time.Millisecond)) || !r.Pending() || r.head != 1 {
		t.Errorf("not handed over: head %d", r.head)
	}
}

// TestCut: what is longer than a frame or a block is cut.
func TestCut(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 70000)
	for version, words := range map[int][]uint32{V1: {4096, 1, 1024, 4}, V2: {4096, 1, 1024, 4}, V3: {4096, 2, 2048, 4, 60}} {
		r := newTestRing(t, version, words...)
		ok, _ := r.Add(packet(long))
		if !ok || bytes.Count(r.mem, []byte("x")) < 900 {
			t.Errorf("version %d: added %t, %d bytes", version, ok, bytes.Count(r.mem, []byte("x")))
		}
	}
}

// TestSmallest: headers alone may be larger than a frame.
func TestSmallest(t *testing.T) {
	for version, frame := range map[int]uint32{V1: 64, V2: 64, V3: 80} {
		r := newTestRing(t, version, 4096, 1, frame, 4096/frame)
		p := packet([]byte("packet"))
		p.Cooked, p.Link = false, 14
		for range 200 {
			r.Add(p)
		}
	}
}

// TestFrozen: when the program keeps all blocks, packets are lost, and the first one
// after it gave the next block back is not.
func TestFrozen(t *testing.T) {
	r := newTestRing(t, V3, 4096, 2, 2048, 4, 60)
	kept := 0
	for range 100 {
		if ok, _ := r.Add(packet(make([]byte, 1000))); ok {
			kept++
		}
	}
	if kept != 6 || !r.blocks.frozen || r.Freezes() != 1 || r.Freezes() != 0 {
		t.Errorf("kept %d, frozen %t", kept, r.blocks.frozen)
	}
	if _, ok := r.Deadline(time.Unix(200, 0)); ok || r.Expire(time.Unix(200, 0)) {
		t.Error("a frozen ring has a deadline")
	}
	native.PutUint32(r.mem[blockStatus:], StatusKernel)
	if ok, _ := r.Add(packet([]byte("a"))); !ok || r.blocks.seq != 3 {
		t.Errorf("added %t, block %d", ok, r.blocks.seq)
	}
}

// FuzzHostile: a program may write what it likes into its ring.
func FuzzHostile(f *testing.F) {
	f.Add(uint8(V3), []byte("scribble"), 0, uint16(1000))
	f.Add(uint8(V2), []byte{0, 0, 0, 0, 255, 255, 255, 255}, 4096, uint16(60))
	f.Add(uint8(V1), []byte{}, 1, uint16(0))
	f.Fuzz(func(t *testing.T, version uint8, b []byte, at int, size uint16) {
		q, err := Decode(int(version%3), 0, request(4096, 3, 1024, 12, 60))
		if err != nil {
			t.Fatal(err)
		}
		r := New(q, make([]byte, q.Size()), time.Unix(100, 0))
		for i := range 40 {
			r.Add(packet(make([]byte, size)))
			if at >= 0 && at < len(r.mem) {
				copy(r.mem[at:], b)
			}
			if i%3 == 0 {
				r.Expire(time.Unix(100+int64(i), 0))
				r.Deadline(time.Unix(100+int64(i), 0))
				r.Pending()
			}
		}
	})
}
