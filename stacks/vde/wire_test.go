// SPDX-License-Identifier: Apache-2.0

// What comes from others: requests, addresses, streams of frames, super-segments.

package vde

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"umrun/stacks/offload"
)

// TestRequestBytes holds the request against what libvdeplug 4.0.1 sent for port 3, as
// strace(1) showed it.
func TestRequestBytes(t *testing.T) {
	b, err := (&request{port: 3, path: "/tmp/v/sw/.28202-00000", descr: "vdeplug: user=0 pid=28202"}).encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != 122+len("vdeplug: user=0 pid=28202") {
		t.Errorf("%d bytes", len(b))
	}
	want := []byte("\316\372\355\376\003\000\000\000\000\003\000\000\001\000/tmp/v/sw/.28202-0")
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 && !bytes.HasPrefix(b, want) {
		t.Errorf("got  %q\nwant %q", b[:len(want)], want)
	}
}

func TestRequest(t *testing.T) {
	for _, r := range []request{
		{path: "/x"},
		{path: "/run/sw/.00001-00002", port: 12, descr: "umrun: user=1000"},
		{typ: reqPort0, path: "/x", descr: "a management's"},
		{path: "/" + strings.Repeat("p", 106), port: maxPort},
	} {
		b, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeRequest(b); err != nil || *got != r {
			t.Errorf("%+v is %+v, %v", r, got, err)
		}
	}
	long := request{path: "/x", descr: strings.Repeat("d", 500)}
	if b, err := long.encode(); err != nil || len(b) >= maxRequest {
		t.Errorf("a long description makes %d bytes, %v", len(b), err)
	}
	for _, path := range []string{"", "/" + strings.Repeat("p", 107)} {
		if _, err := (&request{path: path}).encode(); err == nil {
			t.Errorf("a path of %d bytes is encoded", len(path))
		}
	}
	sa, _ := sockaddr("/old")
	v1 := native.AppendUint32(native.AppendUint32(nil, magic), reqControl)
	v1 = append(append(append(v1, 2, 0, 0, 0, 0, 1), sa[:]...), "an old plug\x00"...)
	if got, err := decodeRequest(v1); err != nil || got.path != "/old" || got.descr != "an old plug" {
		t.Errorf("version 1: %+v, %v", got, err)
	}
}

// FuzzRequest: what is read as a request has an absolute path and is written as one
// that is read as the same.
func FuzzRequest(f *testing.F) {
	b, _ := (&request{path: "/run/sw/.00001-00002", port: 12, descr: "umrun" + offloadToken}).encode()
	f.Add(b)
	f.Add(b[:headerV3])
	f.Add(b[:40])
	f.Add(native.AppendUint32(native.AppendUint32(nil, magic), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			if !errors.Is(err, errRequest) {
				t.Errorf("error %v", err)
			}
			return
		}
		if !strings.HasPrefix(r.path, "/") || r.port < 0 || r.port > 1<<24-1 {
			t.Errorf("%+v", r)
		}
		r.descr = ""
		e, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeRequest(e); err != nil || *again != *r {
			t.Errorf("%+v is written as %+v, %v", r, again, err)
		}
	})
}

// TestDecoder: frames come out whichever way the stream is cut.
func TestDecoder(t *testing.T) {
	var stream []byte
	var want [][]byte
	for _, n := range []int{14, 60, 1514, maxFrame, 15, 9000, 9000, 9000, 9000, 9000, 9000, 9000, 9000} {
		f := bytes.Repeat([]byte{byte(n)}, n)
		stream, want = appendFrame(stream, f), append(want, f)
		stream = append(stream, 0, 0)       // nothing
		stream = appendFrame(stream, f[:5]) // a runt
	}
	for name, r := range map[string]io.Reader{
		"whole":   bytes.NewReader(stream),
		"bytes":   iotest.OneByteReader(bytes.NewReader(stream)),
		"halves":  iotest.HalfReader(bytes.NewReader(stream)),
		"dataEOF": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		d := newDecoder(r)
		var got, frames [][]byte
		var err error
		for err == nil {
			frames, err = d.read(frames, 3)
			for _, f := range frames {
				got = append(got, bytes.Clone(f))
			}
		}
		if err != io.EOF || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: %d frames of %d, %v", name, len(got), len(want), err)
		}
	}
	if _, err := newDecoder(bytes.NewReader(stream[:20])).read(nil, 9); err != nil {
		t.Errorf("a whole frame before a half one: %v", err)
	}
	if _, err := newDecoder(bytes.NewReader(stream[:10])).read(nil, 9); err != io.ErrUnexpectedEOF {
		t.Errorf("half a frame: %v", err)
	}
	if _, err := newDecoder(bytes.NewReader([]byte{0xff, 0xff, 0})).read(nil, 9); !errors.Is(err, errOutOfStep) {
		t.Errorf("a frame of 65535 bytes: %v", err)
	}
}

// FuzzDecoder: whatever the stream and its cuts are, the frames are those of the whole.
func FuzzDecoder(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, make([]byte, 60)), make([]byte, 1514)), 7)
	f.Add([]byte{0, 0, 0xff, 0xff, 1}, 1)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		all := func(r io.Reader) (got [][]byte) {
			d := newDecoder(r)
			for {
				frames, err := d.read(nil, batchSize)
				for _, f := range frames {
					got = append(got, bytes.Clone(f))
				}
				if err != nil {
					return got
				}
			}
		}
		whole := all(bytes.NewReader(stream))
		cut = min(max(cut, 0), len(stream))
		parts := all(io.MultiReader(bytes.NewReader(stream[:cut]), iotest.OneByteReader(bytes.NewReader(stream[cut:]))))
		if !slices.EqualFunc(whole, parts, bytes.Equal) {
			t.Errorf("%d frames, cut at %d %d", len(whole), cut, len(parts))
		}
	})
}

// FuzzCutter: what others' super-segments are cut into fits the MTU, and nothing in them
// leads out of the buffer.
func FuzzCutter(f *testing.F) {
	seg := make([]byte, offload.HdrLen+etherLen+20+20+4000)
	offload.Hdr{Flags: offload.NeedsCsum, GSOType: offload.GSOTCPv4, HdrLen: 54, GSOSize: 1400, CsumStart: 34, CsumOffset: 16}.Encode(seg)
	e := seg[offload.HdrLen:]
	e[12], e[13] = 8, 0
	e[14], e[23], e[14+20+12] = 0x45, 6, 0x50
	binary.BigEndian.PutUint16(e[16:], uint16(len(e)-etherLen))
	f.Add(seg)
	f.Add(seg[:40])
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newCutter(1500)
		before := bytes.Clone(b)
		var h offload.Hdr
		plain := h.Decode(b) == nil && h.GSOType == offload.GSONone
		check := func(frames [][]byte) error {
			for _, x := range frames {
				if len(x) < etherLen || !plain && len(x) > etherLen+tagLen+1500 {
					t.Errorf("a frame of %d bytes", len(x))
				}
			}
			return nil
		}
		c.add(b, check)
		c.flush(check)
		if !bytes.Equal(b, before) {
			t.Error("the sender's buffer has changed")
		}
	})
}

// FuzzTags: inbound undoes outbound, and nothing is read outside of a frame.
func FuzzTags(f *testing.F) {
	f.Add([]byte("ddddddssssss\x81\x00\x00\x05\x08\x00payload"), uint16(5), uint16(0), true)
	f.Add([]byte("ddddddssssss\x08\x00payload"), uint16(5), uint16(4), false)
	f.Fuzz(func(t *testing.T, b []byte, n, untag uint16, trunk bool) {
		if len(b) > 1514 || n > 4094 || untag > 4094 || n == 12 || untag == 11 { // parseTags refuses the last two
			return
		}
		tags := tags{n: n, untag: untag, trunk: trunk, typ: typeVLAN, out: map[uint16]uint16{11: 12}, in: map[uint16]uint16{12: 11}}
		var mem []byte
		out, ok := tags.outbound(b, &mem)
		if !ok {
			return
		}
		buf := make([]byte, 2048)
		in, ok := tags.inbound(buf[:copy(buf, out)])
		// A number that means two things comes back as the other.
		if tag, tagged := tags.tagOf(b); tagged && (tag == n || tag == untag || tag == 12) || !tagged && n != 0 && (n == untag || n == 12 || n == 11) {
			return
		}
		if ok && !bytes.Equal(in, b) && !(len(b) >= 16 && tagOnly(in, b)) {
			t.Errorf("%x\nout %x\nin  %x", b, out, in)
		}
	})
}

// A source is a link with offload that somebody else opened: a TAP device, whose frames
// may have two tags.
type source struct {
	null
	frames [][]byte
}

func (*source) Offloads() bool { return true }

func (s *source) Read(bufs [][]byte, sizes []int) (n int, err error) {
	if len(s.frames) == 0 {
		return 0, net.ErrClosed
	}
	for i, f := range s.frames {
		sizes[i] = offload.HdrLen + copy(bufs[i][copy(bufs[i], make([]byte, offload.HdrLen)):], f)
	}
	n, s.frames = len(s.frames), nil
	return n, nil
}

func (*source) BatchSize() int { return batchSize }

// TestTooLong: a frame that has no room where tags are looked at is lost, alone.
func TestTooLong(t *testing.T) {
	s := &source{null: null{mtu: 1500}, frames: [][]byte{make([]byte, etherLen+2*tagLen+1500), []byte("ddddddssssss\x08\x00payload")}}
	v := &vlan{Link: withoutOffload(s), tags: tags{untag: 7, typ: typeVLAN}}
	bufs, sizes := make([][]byte, batchSize), make([]int, batchSize)
	for i := range bufs {
		bufs[i] = make([]byte, etherLen+tagLen+1500)
	}
	n, err := v.Read(bufs, sizes)
	if err != nil || n != 1 || string(bufs[0][:sizes[0]]) != "ddddddssssss\x81\x00\x00\x07\x08\x00payload" {
		t.Errorf("%d frames, the first %q: %v", n, bufs[0][:sizes[0]], err)
	}
}

// tagOnly tells whether two frames differ in nothing but the tag's priority.
func tagOnly(a, b []byte) bool {
	return len(a) == len(b) && bytes.Equal(a[:14], b[:14]) && bytes.Equal(a[16:], b[16:])
}

// TestTable: addresses age, move, and do not grow without end.
func TestTable(t *testing.T) {
	tab := newTable(time.Minute, 8)
	a, b := &port{}, &port{}
	now := time.Now()
	tab.learn(1, a, now)
	tab.learn(2, b, now)
	tab.learn(1<<40|3, b, now) // a group address sends nothing
	if tab.find(1, now) != a || tab.find(2, now) != b || tab.find(1<<40|3, now) != nil || tab.find(9, now) != nil {
		t.Error("what was learnt is not found")
	}
	if tab.find(1|5<<48, now) != nil {
		t.Error("an address is known in another VLAN")
	}
	tab.learn(1, b, now)
	if tab.find(1, now) != b {
		t.Error("an address has not moved")
	}
	if tab.find(1, now.Add(time.Minute)) != nil {
		t.Error("an address does not age")
	}
	tab.forget(b)
	if tab.find(1, now) != nil || tab.find(2, now) != nil {
		t.Error("a port that is gone is remembered")
	}
	for k := range macKey(1000) {
		tab.learn(k, a, now)
		if len(tab.m) > 8 {
			t.Fatalf("%d entries", len(tab.m))
		}
		if tab.find(k, now) != a {
			t.Fatalf("%d is not there", k)
		}
	}
}

// TestMACs reads the addresses of a frame.
func TestMACs(t *testing.T) {
	f := []byte{1, 2, 3, 4, 5, 6, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0x81, 0, 0x60, 5, 8, 0, 0, 0}
	got := []macKey{dstOf(f), srcOf(f), vlanOf(f)}
	if want := []macKey{0x010203040506, 0x0a0b0c0d0e0f, 5 << 48}; !reflect.DeepEqual(got, want) || !dstOf(f).group() || srcOf(f).group() {
		t.Errorf("got %x, want %x", got, want)
	}
}
