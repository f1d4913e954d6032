// SPDX-License-Identifier: Apache-2.0

// Owners: which process has made a socket, for those who record what passes.

package netmod

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// An Owner is the process that made or accepted a socket.
type Owner struct {
	PID     int    // thread group
	Program string // comm, as it was then
}

// caller is the process of the thread of c.
func caller(c *intercept.Call) Owner {
	o := Owner{PID: c.Task.TGID()}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", o.PID)); err == nil {
		o.Program = strings.TrimSuffix(string(comm), "\n")
	}
	return o
}

// claim remembers that the thread of c made s.
func (m *Module) claim(s socket, c *intercept.Call) {
	if !m.conf.Owners {
		return
	}
	o := caller(c)
	b := s.common()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owner = o
}

// ownersMax bounds what is remembered of sockets of a kernel stack, of which no close
// is seen; then it begins anew.
const ownersMax = 1 << 14

// claimKernel remembers that the thread of c gets fd, a socket of a kernel stack.
func (m *Module) claimKernel(fd int, c *intercept.Call) {
	if !m.conf.Owners {
		return
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return
	}
	o := caller(c)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.owners) >= ownersMax || m.owners == nil {
		m.owners = make(map[uint64]Owner)
	}
	m.owners[cookie] = o
}

// Owner returns who has the socket of protocol proto (IPPROTO_*) that matches says,
// by the names that getsockname(2) and getpeername(2) tell, to be the one looked for,
// and its inode. A socket that matches exactly goes before one that only matches, as
// a listener does. It needs [Config.Owners].
func (m *Module) Owner(proto int, matches func(local, remote netip.AddrPort) (matches, exactly bool)) (o Owner, inode uint64, ok bool) {
	if h, held := m.stack.(stacks.Keeper); held {
		return m.holder(h, proto, matches)
	}
	m.mu.Lock()
	socks := make([]socket, 0, len(m.sockets))
	for _, s := range m.sockets {
		socks = append(socks, s)
	}
	m.mu.Unlock()
	for _, s := range socks {
		b := s.common()
		if b.protocol() != proto {
			continue
		}
		b.mu.Lock()
		gone, who, number := b.gone || b.owner.PID == 0, b.owner, b.inode
		local, remote := b.ep.Names()
		if st, stream := s.(*stream); stream { // it knows them longer than its endpoint
			if st.local.IsValid() {
				local = st.local
			}
			if st.remote.IsValid() {
				remote = st.remote
			}
		}
		b.mu.Unlock()
		if gone {
			continue
		}
		switch match, exactly := matches(local, remote); {
		case exactly:
			return who, number, true
		case match:
			o, inode, ok = who, number, true
		}
	}
	return o, inode, ok
}

// holder is Owner for sockets of a kernel stack. One that the kernel has accepted is
// its listener's.
func (m *Module) holder(h stacks.Keeper, proto int, matches func(local, remote netip.AddrPort) (matches, exactly bool)) (o Owner, inode uint64, ok bool) {
	for _, s := range h.Held() {
		if s.Proto != proto {
			continue
		}
		m.mu.Lock()
		who, known := m.owners[s.Cookie]
		m.mu.Unlock()
		match, exactly := matches(s.Local, s.Remote)
		switch {
		case exactly && known:
			return who, uint64(s.Inode), true
		case match && known:
			o, inode, ok = who, uint64(s.Inode), true
		}
	}
	return o, inode, ok
}

// protocol is the protocol of an inet socket, 0 of others.
func (b *base) protocol() int {
	switch {
	case b.family != unix.AF_INET && b.family != unix.AF_INET6:
		return 0
	case b.proto != 0:
		return b.proto
	case b.typ == unix.SOCK_STREAM:
		return unix.IPPROTO_TCP
	}
	return unix.IPPROTO_UDP
}
