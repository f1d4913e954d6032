// SPDX-License-Identifier: Apache-2.0

// The gate of a connecting placeholder, and the rendezvous where placeholders meet the module.

package netmod

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A nook is an AF_UNIX stream listener's address that nobody else can reach: the
// socket is bound to a path in a private directory that is removed at once, and
// is found again through a descriptor of that path alone.
type nook struct {
	path int // O_PATH descriptor of the unlinked socket
}

// newNook binds fd, a fresh AF_UNIX stream socket.
func newNook(fd int) (*nook, error) {
	dir, err := privateDir()
	if err != nil {
		return nil, err
	}
	name := dir + "/s"
	defer func() {
		_ = os.Remove(name)
		_ = os.Remove(dir)
	}()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return nil, fmt.Errorf("bind %s: %w", name, err)
	}
	path, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return &nook{path: path}, nil
}

// nookPrefix begins the names of directories that sockets are bound in. They are there
// for microseconds.
const nookPrefix = "umrun-nook-"

// nookBases are where such directories can be, the best first.
func nookBases() []string {
	bases := []string{"/dev/shm", os.TempDir(), "/tmp"}
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		return append([]string{run}, bases...)
	}
	return bases
}

// sweepNooks removes the directories that a killed umrun of this user's has left.
func sweepNooks(bases []string) {
	const stale = time.Minute
	for _, base := range bases {
		dirs, _ := filepath.Glob(filepath.Join(base, nookPrefix+"*"))
		for _, dir := range dirs {
			var st unix.Stat_t
			if unix.Lstat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || time.Since(time.Unix(st.Mtim.Unix())) < stale {
				continue
			}
			_ = os.Remove(dir + "/s")
			_ = os.Remove(dir)
		}
	}
}

// privateDir makes a directory of mode 0700 where sockets can be bound.
func privateDir() (string, error) {
	var first error
	for _, base := range nookBases() {
		dir, err := os.MkdirTemp(base, nookPrefix)
		if err == nil {
			return dir, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", fmt.Errorf("no directory for sockets: %w", first)
}

func (n *nook) addr() *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(n.path)}
}

// alive tells whether anybody still holds the socket that is bound here: a
// datagram socket cannot connect to it, and the errno says why.
func (n *nook) alive(probe int) bool {
	return unix.Connect(probe, n.addr()) == unix.EPROTOTYPE
}

func (n *nook) close() {
	if n != nil && n.path >= 0 {
		unix.Close(n.path)
		n.path = -1
	}
}

// A rendezvous connects placeholders to the module.
type rendezvous struct {
	mu   sync.Mutex // one connect and its accept at a time
	fd   int        // listener
	nook *nook
}

func newRendezvous() (*rendezvous, error) {
	sweepNooks(nookBases())
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	n, err := newNook(fd)
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &rendezvous{fd: fd, nook: n}, nil
}

// join connects d, a duplicate of an unconnected stream placeholder, and returns
// the module's end, which does not block.
func (r *rendezvous) join(d int) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := unix.Connect(d, r.nook.addr()); err != nil {
		return -1, fmt.Errorf("connect placeholder: %w", err)
	}
	peer, _, err := unix.Accept4(r.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("accept placeholder: %w", err)
	}
	if err := urgentInline(peer); err != nil {
		unix.Close(peer)
		return -1, err
	}
	return peer, nil
}

// urgentInline makes the module's end of a stream read a byte that was sent with
// MSG_OOB in its place; else it would stand in the queue, be counted, and never be
// read. What the program writes so is carried as ordinary data.
func urgentInline(peer int) error {
	return unix.SetsockoptInt(peer, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
}

func (r *rendezvous) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	unix.Close(r.fd)
	r.nook.close()
}

// placeholderBuf is the SO_SNDBUF of a stream placeholder; the kernel doubles it.
// The byte that stays in the queue keeps its whole buffer charged, and a writer
// that waits is woken only when no more than a quarter of the send buffer is in use
// (af_unix.c:unix_writable). The largest buffer is one of sendfile(2), 64 KiB and
// its overhead, which a quarter of the default, 212,992, does not cover.
const placeholderBuf = 144 << 10

// roomy gives a stream placeholder its send buffer.
func roomy(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, placeholderBuf)
}

// gateBuf is the SO_SNDBUF of a placeholder behind a gate: the least there is
// (SOCK_MIN_SNDBUF), so that little is to be filled and drained.
const gateBuf = 1

var zeros [1]byte

// fill makes the send buffer of d full and returns the bytes that took.
func fill(d int) (n int) {
	for {
		m, err := unix.SendmsgN(d, zeros[:], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil || m <= 0 {
			return n
		}
		n += m
	}
}

// lag writes the one byte through a placeholder that its end keeps unread.
func lag(d int) error {
	_, err := unix.SendmsgN(d, zeros[:], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return err
}

// drain reads and drops n bytes of filler.
func drain(peer, n int) error {
	var sink [512]byte
	for n > 0 {
		m, err := unix.Read(peer, sink[:min(n, len(sink))])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("drain gate: %w", err)
		}
		if m == 0 {
			return nil // the program has closed it already
		}
		n -= m
	}
	return nil
}
