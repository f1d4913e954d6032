// SPDX-License-Identifier: Apache-2.0

// The stack: how it is made, what sockets it hands out, how it ends.

package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// Config describes a stack in a namespace of its own. The zero value has only a
// loopback interface.
type Config struct {
	Links []stacks.LinkConfig // the stack owns them from the moment that New returns without an error
	DNS   stacks.DNS

	// CongestionControl is that of new connections; empty: the machine's.
	CongestionControl string

	RcvBufMax int // most bytes of a TCP receive buffer; the kernel's if zero
	SndBufMax int // most bytes of a TCP send buffer; the kernel's if zero

	Log *slog.Logger // nil: nothing is logged
}

// A Stack hands out sockets of a network namespace. It is safe for concurrent use.
type Stack struct {
	log     *slog.Logger
	dns     atomic.Pointer[stacks.DNS] // nil: none
	inode   uint64
	private bool

	h     *helper // nil: the namespace is the process's own
	pool  *pool   // nil with h
	nl    *rtnl
	diag  *rtnl // of NETLINK_SOCK_DIAG
	watch *watcher
	links []*device
	rests sync.Map // of *stream: closed ones that have a rest; see later

	monitor *monitor

	cc        string     // congestion control for each route; empty: it is the default
	setMu     sync.Mutex // one SetState at a time
	tables    int        // of names.go; +checklocks:setMu
	closeOnce sync.Once
	closeErr  error
}

var _ stacks.KernelStack = (*Stack)(nil)

// New makes a network namespace with the links of c as its interfaces. On error the
// links remain the caller's, and nothing is left behind; the error is an
// [*UnavailableError] if the machine does not allow it.
func New(c Config) (_ *Stack, err error) {
	s := &Stack{log: c.Log, private: true}
	s.dns.Store(&c.DNS)
	if s.h, err = startPrivate(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, d := range s.links {
				if !d.serving {
					d.link = nil // still the caller's
				}
			}
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.open(); err != nil {
		return nil, err
	}
	if err := s.settle(c); err != nil {
		return nil, err
	}
	for _, l := range c.Links {
		if err := s.attach(l); err != nil {
			return nil, fmt.Errorf("interface %s: %w", l.Name, err)
		}
	}
	if err := s.routeCongestion(); err != nil {
		return nil, err
	}
	s.pool = newPool(s.h) // whose sockets take over the settings of the namespace
	for _, d := range s.links {
		if err := d.serve(); err != nil {
			return nil, fmt.Errorf("interface %s: %w", d.conf.Name, err)
		}
	}
	return s, nil
}

// Open makes a stack of the namespace that a file such as /run/netns/NAME or
// /proc/PID/ns/net stands for; errors are those of [OpenFile], or an
// [*UnavailableError] if it cannot be entered. Nothing is changed in it.
func Open(path string, log *slog.Logger) (_ *Stack, err error) {
	f, err := OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &Stack{log: log}
	if s.h, err = startIn(f); err != nil {
		return nil, enterProblem(path, err)
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.pool = newPool(s.h)
	return s, nil
}

// OpenFile opens the file of a namespace: EINVAL if it is no network namespace, an
// [*UnavailableError] if this user may not open it.
func OpenFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, enterProblem(path, err)
	}
	if typ, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || typ != unix.CLONE_NEWNET {
		f.Close()
		return nil, fmt.Errorf("%s is no network namespace: %w", path, unix.EINVAL)
	}
	return f, nil
}

// Host makes a stack of the namespace that the process is in.
func Host(log *slog.Logger) (*Stack, error) {
	s := &Stack{log: log}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open makes what each stack has.
func (s *Stack) open() (err error) {
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.h != nil {
		s.inode = s.h.inode
	} else {
		var st unix.Stat_t
		if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
			return fmt.Errorf("stat /proc/self/ns/net: %w", err)
		}
		s.inode = st.Ino
	}
	for proto, nl := range map[int]**rtnl{unix.NETLINK_ROUTE: &s.nl, unix.NETLINK_INET_DIAG: &s.diag} {
		fd, err := s.SocketFD(unix.AF_NETLINK, unix.SOCK_RAW, proto)
		if err == nil {
			*nl, err = newRTNL(fd)
		}
		if err != nil {
			return fmt.Errorf("netlink socket: %w", err)
		}
	}
	if s.watch, err = newWatcher(); err != nil {
		return err
	}
	fd, err := s.SocketFD(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	s.monitor, err = newMonitor(fd, s.watch)
	return err
}

// loopback is the index of lo.
const loopback = 1

// settle makes a new namespace fit for programs of a user who owns it.
func (s *Stack) settle(c Config) error {
	// The first thing that takes privileges: see mendUserNS.
	if err := s.nl.setLink(loopback, unix.IFF_UP, unix.IFF_UP, 0, nil, 0); err != nil {
		return &UnavailableError{What: "a network namespace of its own", Err: fmt.Errorf("bring lo up: %w", err), Mend: mendUserNS(errno(err))}
	}
	gid := os.Getegid()
	for _, set := range []struct {
		name, value string
		needed      bool
	}{
		{"ipv4/ping_group_range", fmt.Sprintf("%d %d", gid, gid), true}, // icmp(7); judged when the helper makes them
		{"ipv4/ip_unprivileged_port_start", "0", true},
		// No solicitations of routers and no waiting for duplicates where the other
		// end is a tunnel; each Ethernet link is put right below.
		{"ipv6/conf/default/accept_dad", "0", false},
		{"ipv6/conf/default/router_solicitations", "0", false},
		{"ipv6/conf/default/accept_ra", "0", false},
		{"ipv6/conf/default/addr_gen_mode", "1", false}, // IN6_ADDR_GEN_MODE_NONE
	} {
		if err := s.h.write(sysctl(set.name), set.value); err != nil {
			if set.needed {
				return err
			}
			s.log.Debug("setting of the namespace", "name", set.name, "err", err) // no IPv6
		}
	}
	return s.tune(c)
}

func sysctl(name string) string { return "/proc/sys/net/" + name }

// tune sets what the keys of a network say of TCP.
func (s *Stack) tune(c Config) error {
	if cc := c.CongestionControl; cc != "" {
		// A namespace may not choose each one as its default (ip-sysctl,
		// tcp_allowed_congestion_control), but for each route.
		if err := s.h.write(sysctl("ipv4/tcp_congestion_control"), cc); err != nil {
			s.cc = cc
		}
	}
	for _, buf := range []struct {
		name       string
		first, max int // first is the kernel's own
	}{{"ipv4/tcp_rmem", 131072, c.RcvBufMax}, {"ipv4/tcp_wmem", 16384, c.SndBufMax}} {
		if buf.max == 0 {
			continue
		}
		if err := s.h.write(sysctl(buf.name), fmt.Sprintf("4096 %d %d", min(buf.first, buf.max), buf.max)); err != nil {
			return err
		}
	}
	return nil
}

// routeCongestion gives the routes their congestion control.
func (s *Stack) routeCongestion() error {
	if s.cc == "" {
		return nil
	}
	routes, err := s.nl.routes()
	if err != nil {
		return err
	}
	for _, rt := range routes {
		if rt.Refuses() != 0 {
			continue
		}
		if err := s.nl.setCongestion(rt, s.cc); err != nil {
			return &UnavailableError{What: "the congestion control " + s.cc, Err: err, Mend: "modprobe tcp_" + s.cc}
		}
	}
	return nil
}

// Namespace says where the sockets are.
func (s *Stack) Namespace() stacks.Namespace {
	return stacks.Namespace{Inode: s.inode, Private: s.private}
}

// ReadyFD returns a socket if one is there.
func (s *Stack) ReadyFD(family, typ, proto int) (fd int, ok bool) {
	switch {
	case s.pool != nil:
		return s.pool.take(kind{family, typ, proto})
	case s.h == nil:
		fd, err := s.SocketFD(family, typ, proto)
		return fd, err == nil
	}
	return -1, false
}

// SocketFD makes a socket.
func (s *Stack) SocketFD(family, typ, proto int) (int, error) {
	if s.h == nil {
		fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			return -1, err
		}
		return fd, nil
	}
	k := kind{family, typ, proto}
	if s.pool != nil {
		if fd, ok := s.pool.take(k); ok {
			return fd, nil
		}
	}
	fds, err := s.h.sockets(k, 1)
	if err != nil {
		return -1, err
	}
	if s.pool != nil {
		s.pool.learn(k)
	}
	closeAll(fds[1:])
	return fds[0], nil
}

// Close ends the stack: its interfaces go with their links, so that sockets which
// somebody still has lead nowhere. Of a namespace that was there before, nothing ends.
func (s *Stack) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Stack) close() error {
	var errs []error
	if s.pool != nil {
		s.pool.close()
	}
	for _, d := range s.links {
		errs = append(errs, d.close())
	}
	if s.monitor != nil {
		s.monitor.close()
	}
	if s.watch != nil {
		s.watch.close()
	}
	for _, nl := range []*rtnl{s.nl, s.diag} {
		if nl != nil {
			nl.close()
		}
	}
	if s.h != nil {
		s.h.close()
	}
	return errors.Join(errs...)
}

// Probe tries whether this machine allows this user what [New] needs, also for links if
// tun is set, and returns nil or an [*UnavailableError].
func Probe(tun bool) error {
	s := &Stack{private: true}
	h, err := startPrivate()
	if err != nil {
		return err
	}
	s.h = h
	defer s.Close()
	if err := s.open(); err != nil {
		return err
	}
	if err := s.settle(Config{}); err != nil {
		return err
	}
	if !tun {
		return nil
	}
	fd, err := h.tun("probe0", unix.IFF_TUN|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	if err != nil {
		return &UnavailableError{What: "a TUN device", Err: err, Mend: mendTUN(errno(err))}
	}
	unix.Close(fd)
	return nil
}
