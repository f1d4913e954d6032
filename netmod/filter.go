// SPDX-License-Identifier: Apache-2.0

// Filters of sockets: SO_ATTACH_FILTER and SO_GET_FILTER, socket(7).

package netmod

import (
	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks/bpf"
)

// sizeofFprog is the size of struct sock_fprog on 64-bit machines: a length and, 8
// bytes in, a pointer (linux/filter.h).
const sizeofFprog = 16

// readFilter replaces the value of SO_ATTACH_FILTER, a struct sock_fprog, by the
// program that it points to. EINVAL as in net/core/filter.c:__get_filter.
func readFilter(c *intercept.Call, v []byte) ([]byte, error) {
	if len(v) != sizeofFprog {
		return nil, unix.EINVAL
	}
	n, at := int(native.Uint16(v)), intercept.Addr(native.Uint64(v[8:]))
	if n == 0 || n > bpf.MaxInsns || at == 0 {
		return nil, unix.EINVAL
	}
	prog := make([]byte, n*bpf.InsnLen)
	return prog, c.ReadMem(at, prog)
}

// getFilter answers SO_GET_FILTER, whose length counts instructions and not bytes
// (net/core/filter.c:sk_get_filter); with room for none it tells how many there are.
func (m *Module) getFilter(c *intercept.Call, s socket, room int) intercept.Action {
	b := s.common()
	prog := make([]byte, bpf.MaxInsns*bpf.InsnLen)
	b.mu.Lock()
	size, err := b.ep.Option(unix.SOL_SOCKET, unix.SO_GET_FILTER, prog)
	b.mu.Unlock()
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	n := size / bpf.InsnLen
	if room > 0 {
		if room < n {
			return intercept.Fail(unix.EINVAL)
		}
		if n > 0 {
			if err := c.WriteMem(intercept.Addr(c.Args[3]), prog[:size]); err != nil {
				return intercept.Fail(intercept.Errno(err))
			}
		}
	}
	return result(c.WriteMem(intercept.Addr(c.Args[4]), int32Value(n)))
}
