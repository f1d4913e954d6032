// SPDX-License-Identifier: Apache-2.0

// Serving the protocol: switch://, hub:// and multi://.

package vde

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/pipe"
)

// A nodeKind says where a node sends a frame.
type nodeKind int

const (
	switching nodeKind = iota // to the port of the destination, to all where that is not known
	flooding                  // hub: to all others
	starring                  // multi: what is ours to all others, what is theirs to us
)

// A node is a switch or hub that others plug into as into vde_switch, and that has a
// port of our own: the link. Ports are read by a goroutine each, which forwards what it
// reads; another accepts new ones.
//
// A plug that does not read in time loses frames, see [port.write]. There is no
// spanning tree: who joins two switches twice has a loop.
type node struct {
	kind  nodeKind
	dir   string // absolute
	mode  fs.FileMode
	gid   int // -1: as it comes
	mtu   int
	log   *slog.Logger
	table *table // of switching

	ctl *net.UnixListener
	own *port
	end *pipe.End // the stack's: what is for us is read from it
	tx  sync.Pool // of *forwarder, for what we send

	mu    sync.Mutex
	ports atomic.Pointer[[]*port] // replaced under mu
	next  int                     // number of the next port; +checklocks:mu
	done  bool                    // +checklocks:mu

	once sync.Once
	wg   sync.WaitGroup // accept, and what each port needs
}

// Defaults of vdeplug's nodes.
const (
	nodeMode   = 0o600
	nodeExpire = 120 * time.Second
	nodeHash   = 256
	minEntries = 1024 // where vdeplug's entries push each other out, ours are counted
)

func checkNode(u *URL) error {
	if _, err := nodeConfig(u, Options{}); err != nil {
		return err
	}
	return checkNodeDir(u.Arg)
}

// maxNodeDir is the longest path of a node's directory, in which a million plugs can
// have sockets.
const maxNodeDir = sockaddrLen - 2 - 1 - len("/port999999")

func checkNodeDir(dir string) error {
	if len(dir) > maxNodeDir {
		return fmt.Errorf("the path is too long for sockets in it (%d bytes of %d)", len(dir), maxNodeDir)
	}
	return nil
}

// nodeConfig reads the options of a node.
func nodeConfig(u *URL, o Options) (*node, error) {
	n := &node{mode: nodeMode, gid: -1, mtu: o.MTU, log: o.Log}
	switch u.Scheme {
	case "hub":
		n.kind = flooding
	case "multi":
		n.kind = starring
	}
	if m, ok, err := u.mode("mode"); err != nil {
		return nil, err
	} else if ok {
		n.mode = fs.FileMode(m &^ 0o111)
	}
	if _, _, err := u.mode("dirmode"); err != nil {
		return nil, err
	}
	expire, err := u.number("expiretime", int(nodeExpire/time.Second), 1, 1<<31-1)
	if err != nil {
		return nil, err
	}
	size, err := u.number("hashsize", nodeHash, 1, 1<<20)
	if err != nil {
		return nil, err
	}
	if _, err := u.number("hashseed", 0, 0, 1<<62); err != nil { // our hash has a seed of its own
		return nil, err
	}
	if n.kind == switching {
		n.table = newTable(time.Duration(expire)*time.Second, max(size, minEntries))
	}
	return n, nil
}

// dirMode is the mode of the directory: what mode= allows, with the right to enter for
// whom may read or write, and the group handed down.
func (n *node) dirMode(u *URL) uint32 {
	if m, ok, _ := u.mode("dirmode"); ok {
		return m
	}
	m := uint32(n.mode)
	return 0o2000 | m | m&0o444>>2 | m&0o222>>1
}

// openNode makes the directory and serves in it. Without a path it is vdeplug's.
func openNode(u *URL, o Options) (stacks.Link, error) {
	n, err := nodeConfig(u, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	if g, ok := u.opt("grp"); ok {
		if n.gid, err = groupID(g); err != nil {
			return nil, fmt.Errorf("%s: %w", u, err)
		}
	}
	dir := u.Arg
	if dir == "" {
		dir = "/tmp/vdenode_" + userName()
	}
	if n.dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := checkNodeDir(n.dir); err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	if err := n.listen(n.dirMode(u)); err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	inner, outer := pipe.New(pipe.Config{MTU: n.mtu, Ethernet: true, Offload: !o.plain})
	n.end = outer
	n.own = &port{name: "own", local: inner, offload: !o.plain}
	n.own.ready.Store(true)
	n.tx.New = func() any { return newForwarder(n, n.own) }
	n.ports.Store(&[]*port{n.own})
	n.wg.Go(n.accept)
	return n, nil
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("u%d", os.Geteuid())
}

// listen makes the directory and the control socket in it. What a node left behind
// that was killed is cleared away.
func (n *node) listen(dirMode uint32) (err error) {
	if err := os.Mkdir(n.dir, 0o700); errors.Is(err, fs.ErrExist) {
		if err := n.clear(); err != nil {
			return err
		}
		err = os.Mkdir(n.dir, 0o700)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if n.ctl != nil {
				n.ctl.Close()
			}
			os.Remove(n.dir)
		}
	}()
	if n.gid >= 0 {
		if err := os.Chown(n.dir, -1, n.gid); err != nil {
			return err
		}
	}
	if err := unix.Chmod(n.dir, dirMode); err != nil { // os.Chmod has other bits for setgid
		return fmt.Errorf("chmod %s: %w", n.dir, err)
	}
	ctl := filepath.Join(n.dir, "ctl")
	if n.ctl, err = net.ListenUnix("unix", &net.UnixAddr{Name: ctl, Net: "unix"}); err != nil {
		return err
	}
	return n.give(ctl)
}

// give gives a socket in the directory to those whom the URL lets in.
func (n *node) give(path string) error {
	if n.gid >= 0 {
		if err := os.Chown(path, -1, n.gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, n.mode)
}

// clear removes the directory of a node that is no more: one that holds nothing but
// sockets, whose control socket nobody serves.
func (n *node) clear() error {
	es, err := os.ReadDir(n.dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		if e.Type() != fs.ModeSocket {
			return fmt.Errorf("%s is there and is no directory of a switch: it holds %s", n.dir, e.Name())
		}
	}
	f, err := dialControl(filepath.Join(n.dir, "ctl"))
	switch {
	case err == nil:
		f.Close()
		return fmt.Errorf("another switch serves %s: plug into it with vde://%s", n.dir, n.dir)
	case err != unix.ECONNREFUSED && err != unix.ENOENT:
		return fmt.Errorf("%s/ctl: %w", n.dir, err)
	}
	for _, e := range es {
		if err := os.Remove(filepath.Join(n.dir, e.Name())); err != nil {
			return err
		}
	}
	return os.Remove(n.dir)
}

// accept takes plugs in until the node is closed.
func (n *node) accept() {
	for {
		c, err := n.ctl.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			n.log.Warn("accept a VDE plug", "err", err)
			time.Sleep(10 * time.Millisecond) // no descriptors left: others may close some
			continue
		}
		n.mu.Lock()
		if n.done {
			n.mu.Unlock()
			c.Close()
			return
		}
		n.next++
		p := &port{name: fmt.Sprintf("%03d", n.next), ctl: c}
		n.setLocked(append(n.all(), p)) // so that close finds it; it has no data socket yet
		n.wg.Go(func() { n.serve(p) })
		n.mu.Unlock()
	}
}

// all returns the ports of now; the slice does not change.
func (n *node) all() []*port { return *n.ports.Load() }

func (n *node) setLocked(ports []*port) {
	fresh := append(make([]*port, 0, len(ports)), ports...)
	n.ports.Store(&fresh)
}

// serve is the life of a port: the request, frames, the end.
func (n *node) serve(p *port) {
	defer n.drop(p)
	if err := n.admit(p); err != nil {
		n.log.Info("a VDE plug is not let in", "err", err)
		return
	}
	n.log.Info("a VDE plug is in", "port", p.name, "plug", p.descr)
	n.wg.Go(func() { // ends when the plug hangs up, or by drop
		var b [64]byte
		for {
			if _, err := p.ctl.Read(b[:]); err != nil {
				p.close()
				return
			}
		}
	})
	f := newForwarder(n, p)
	for {
		bufs, sizes := f.room()
		k, err := p.data.Load().readFrames(&f.in, bufs, sizes)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		for i := range k {
			bufs[i] = bufs[i][:sizes[i]]
		}
		f.forward(bufs[:k])
	}
}

// drop forgets a port.
func (n *node) drop(p *port) {
	p.close()
	if p.path != "" {
		os.Remove(p.path)
	}
	n.mu.Lock()
	var left []*port
	for _, q := range n.all() {
		if q != p {
			left = append(left, q)
		}
	}
	n.setLocked(left)
	n.mu.Unlock()
	if n.table != nil {
		n.table.forget(p)
	}
	if lost := p.drops.Load(); lost > 0 {
		n.log.Info("a VDE plug did not read in time", "port", p.name, "frames_lost", lost)
	}
}

// requestTimeout is how long a plug may take to say what it wants.
const requestTimeout = 5 * time.Second

// admit reads a plug's request and gives it a socket of its own.
func (n *node) admit(p *port) error {
	p.ctl.SetDeadline(time.Now().Add(requestTimeout))
	b := make([]byte, maxRequest)
	k, err := p.ctl.Read(b)
	if err != nil {
		return err
	}
	req, err := decodeRequest(b[:k])
	if err != nil {
		return err
	}
	uid, err := peerUID(p.ctl)
	if err != nil {
		return err
	}
	p.descr, p.offload = strings.CutSuffix(req.descr, offloadToken)
	s, err := socket(unix.AF_UNIX, unix.SOCK_DGRAM, "VDE port "+p.name)
	if err != nil {
		return err
	}
	if !p.setData(s) {
		return net.ErrClosed
	}
	if err := connectTo(s, req.path, uid); err != nil {
		return fmt.Errorf("its socket %s: %w", req.path, err)
	}
	path := filepath.Join(n.dir, "port"+p.name)
	if err := s.control(func(fd int) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: path}) }); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	p.path = path
	if err := n.give(path); err != nil {
		return err
	}
	sa, err := sockaddr(path)
	if err != nil {
		return err
	}
	if p.offload && len(path)+1+len(offloadToken) < len(sa)-2 {
		copy(sa[2+len(path)+1:], offloadToken)
	} else {
		p.offload = false
	}
	p.ready.Store(true)
	if _, err := p.ctl.Write(sa[:]); err != nil {
		return err
	}
	return p.ctl.SetDeadline(time.Time{})
}

// peerUID returns whose process is at the other end.
func peerUID(c *net.UnixConn) (uint32, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var e error
	if err := rc.Control(func(fd uintptr) { cred, e = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if e != nil {
		return 0, e
	}
	return cred.Uid, nil
}

// connectTo connects s to the socket at path, which must belong to uid: else a plug
// could have us send its frames to a socket that only we may write to.
func connectTo(s *sock, path string, uid uint32) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || uid != 0 && st.Uid != uid {
		return fmt.Errorf("it is not a socket of user %d: %w", uid, unix.EPERM)
	}
	return s.control(func(data int) error {
		return unix.Connect(data, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", fd)})
	})
}

func (*node) Type() stacks.LinkType { return stacks.LinkEthernet }
func (n *node) MTU() int            { return n.mtu }
func (*node) BatchSize() int        { return batchSize }

// Offloads implements [stacks.Offloads].
func (n *node) Offloads() bool { return n.own.offload }

// Read implements [stacks.Link].
func (n *node) Read(bufs [][]byte, sizes []int) (int, error) { return n.end.Read(bufs, sizes) }

// Write implements [stacks.Link]: frames are forwarded before it returns.
func (n *node) Write(bufs [][]byte) (int, error) {
	if n.own.ended.Load() {
		return 0, net.ErrClosed
	}
	f := n.tx.Get().(*forwarder)
	f.forward(bufs)
	n.tx.Put(f)
	return len(bufs), nil
}

// Close implements [stacks.Link]: plugs see the switch end, and the directory goes.
func (n *node) Close() error {
	n.once.Do(func() {
		n.mu.Lock()
		n.done = true
		ports := n.all()
		n.mu.Unlock()
		n.ctl.Close() // unlinks its socket
		for _, p := range ports {
			p.close()
		}
		n.end.Close()
		n.wg.Wait()
		if err := os.Remove(n.dir); err != nil {
			n.log.Warn("a VDE node leaves its directory behind", "err", err)
		}
	})
	return nil
}
