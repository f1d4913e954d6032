// SPDX-License-Identifier: Apache-2.0

// Requests for dumps with anything in them, under strict checking, asked of the kernel
// and of us.

package rtnetlink

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
)

// ended is how a dump ends: what its NLMSG_DONE or NLMSG_ERROR says.
func ended(datagrams [][]byte) string {
	if len(datagrams) == 0 {
		return "nothing"
	}
	d := datagrams[len(datagrams)-1]
	for { // the last message of it
		n := nlmsg.Align(int(binary.NativeEndian.Uint32(d)))
		if n >= len(d) {
			break
		}
		d = d[n:]
	}
	typ := binary.NativeEndian.Uint16(d[4:])
	if typ != unix.NLMSG_DONE && typ != unix.NLMSG_ERROR {
		return fmt.Sprintf("type %d", typ)
	}
	return fmt.Sprint(typ, " ", unix.Errno(-int32(binary.NativeEndian.Uint32(d[16:]))))
}

func TestKernelStrict(t *testing.T) {
	oracle(t)
	opts := Options{Strict: true}
	k := newKernelSocket(t, opts)
	headers := map[uint16]int{unix.RTM_GETLINK: 16, unix.RTM_GETADDR: 8, unix.RTM_GETROUTE: 12, unix.RTM_GETRULE: 12, unix.RTM_GETNEIGH: 12}
	// An attribute that a dump does not take fails it, for that or for its length: the
	// kernel looks at lengths first, and knows those of all.
	ask := func(what string, typ uint16, body ...[]byte) {
		t.Helper()
		req := message(typ, requestD, 1, body...)
		want, got := ended(k.answer(t, req)), ended(opts.Answer(twin(), req, k.port))
		if got == want {
			return
		}
		attr := len(body) > 1 && !strings.Contains(want, "errno 0") && !strings.Contains(got, "errno 0")
		if !attr {
			t.Errorf("type %d, %s: %s, the kernel %s", typ, what, got, want)
		}
	}
	for typ, n := range headers {
		for _, family := range []byte{unix.AF_UNSPEC, unix.AF_INET, unix.AF_INET6} {
			header := func() []byte { h := make([]byte, n); h[0] = family; return h }
			for size := 1; size <= n; size++ {
				ask(fmt.Sprintf("family %d, %d bytes", family, size), typ, header()[:size])
			}
			for at := 1; at < n; at++ {
				for _, v := range []byte{1, 2, 8, 0x80} {
					h := header()
					h[at] = v
					ask(fmt.Sprintf("family %d, byte %d is %d", family, at, v), typ, h)
				}
			}
			for attr := uint16(0); attr < 80; attr++ {
				for _, size := range []int{0, 1, 4, 8} {
					ask(fmt.Sprintf("family %d, attribute %d of %d bytes", family, attr, size), typ, header(), attribute(attr, make([]byte, size)))
				}
			}
			ask("a bit of an attribute", typ, header(), []byte{4, 0, 0, 0, 1, 0, 0, 0})
			ask("a cut one", typ, header(), []byte{40, 0, 1, 0, 1, 0, 0, 0})
		}
	}
}
