// SPDX-License-Identifier: Apache-2.0

// The name servers that a provider brings: what it writes to resolv.conf is the
// network's, and never the host's.

package view

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/netmod/dns"
	"umrun/stacks"
)

// resolvFile is /etc/resolv.conf of a provider, which its scripts write. Who reads it
// reads the host's: by that the provider finds its server.
type resolvFile struct{ p *provider }

// maxResolv bounds what is read of one writer, bytes.
const maxResolv = 64 << 10

// Open implements [fsmod.Device]. What the caller writes counts when it has closed the
// file, as at any other time a reader would see a part of it.
func (f resolvFile) Open(flags int) (int, error) {
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		return -1, fsmod.ErrHost
	}
	r, w, err := os.Pipe()
	if err != nil {
		return -1, err
	}
	defer w.Close()
	fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		r.Close()
		return -1, err
	}
	f.p.wg.Go(func() {
		defer r.Close()
		b, err := io.ReadAll(io.LimitReader(r, maxResolv))
		if err == nil {
			f.p.far.tellDNS(b, flags&unix.O_APPEND != 0)
		}
	})
	return fd, nil
}

// tellDNS makes the name servers of the network those of a resolv.conf(5), or of what
// was there with b behind it.
func (f *farStack) tellDNS(b []byte, more bool) {
	f.mu.Lock()
	if more {
		b = append(f.resolv[:len(f.resolv):len(f.resolv)], b...)
	}
	f.resolv = b
	f.mu.Unlock()
	conf := dns.ParseResolvConf(bytes.NewReader(b))
	next := stacks.DNS{Search: conf.Search}
	if !conf.Implied {
		for _, a := range conf.Nameservers {
			next.Servers = append(next.Servers, netip.AddrPortFrom(a.Unmap(), 53))
		}
	}
	if err := f.change(func(s stacks.State) stacks.State {
		s.DNS = next
		return s
	}); err != nil {
		f.dns.plan.conf.Log.Error(fmt.Sprintf("name servers of the network %s: %v", f.dns.name, err))
	}
}
