// SPDX-License-Identifier: Apache-2.0

// Fuzzing of what a link may deliver.

package netstack_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks/offload"
	"umrun/stacks/pipe"
)

// FuzzInbound writes any bytes into an offloading link: the stack takes or drops
// them, and lives.
func FuzzInbound(f *testing.F) {
	syn := []byte{
		0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0x66, 0xcd, 10, 1, 0, 2, 10, 1, 0, 1,
		0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
	}
	for _, flags := range []uint8{0, offload.DataValid, offload.NeedsCsum} {
		hdr := make([]byte, offload.HdrLen)
		offload.Hdr{Flags: flags}.Encode(hdr)
		for _, n := range []int{0, 1, 20, 33, len(syn)} {
			f.Add(append(append([]byte(nil), hdr...), syn[:n]...))
		}
	}
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3})
	f.Add(append(make([]byte, offload.HdrLen), 0x60, 0, 0, 0, 0, 8, 44, 64))
	fuzzLink(f, pipe.Config{Offload: true})
}

// FuzzFrame is FuzzInbound on Ethernet: ARP, NDP, and what else may be in a frame.
func FuzzFrame(f *testing.F) {
	head := make([]byte, offload.HdrLen)
	for _, frame := range [][]byte{
		arp(macAll, macB, 1, "10.1.0.2", "10.1.0.1", macNone), arp(macAll, macC, 1, "10.1.0.2", "10.1.0.2", macNone),
		arp(macA, macB, 2, "10.1.0.2", "10.1.0.1", macA), make([]byte, 14), make([]byte, 13), nil,
		append(arp(macAll, macB, 1, "10.1.0.2", "10.1.0.1", macNone)[:12], 0x81, 0, 0, 5, 8, 0, 0x45),
		append(arp("33:33:00:00:00:01", macB, 1, "10.1.0.2", "10.1.0.1", macNone)[:12], 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255,
			0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 136, 0, 0, 0, 0x20, 0, 0, 0),
	} {
		f.Add(append(head[:len(head):len(head)], frame...))
	}
	fuzzLink(f, pipe.Config{Offload: true, Ethernet: true})
}

// fuzzLink writes what is found into a link.
func fuzzLink(f *testing.F, c pipe.Config) {
	a, b := pipe.New(c)
	st := newStack(f, a, a4, a6)
	// What the stack answers must not fill the pipe.
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		bufs, sizes := [][]byte{make([]byte, 70000)}, []int{0}
		for {
			if _, err := b.Read(bufs, sizes); err != nil {
				return
			}
		}
	}()
	f.Cleanup(func() { b.Close(); <-drained })
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		s, err := st.Socket(unix.AF_INET6, typ, 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { s.Close() })
		if err := s.Bind(netip.MustParseAddrPort("[::]:80")); err != nil {
			f.Fatal(err)
		}
		if l, ok := s.(interface{ Listen(int) error }); ok {
			if err := l.Listen(10); err != nil {
				f.Fatal(err)
			}
		}
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > 65535 {
			return
		}
		if _, err := b.Write([][]byte{p}); err != nil {
			t.Fatal(err)
		}
		s, err := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	})
}
