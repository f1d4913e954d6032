// SPDX-License-Identifier: Apache-2.0

// The stack's side of the helper: how it is started, asked, and ended.

package kernel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A helper is a process in the namespace. It is safe for concurrent use.
type helper struct {
	pid   int
	inode uint64 // of the namespace

	mu   sync.Mutex // one exchange at a time; held while waiting for the reply
	conn *net.UnixConn
	once sync.Once
}

// caps are what the helper needs in the user namespace that it is given. An ordinary
// user's execve(2) would lose them.
var caps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE}

// startPrivate starts a helper in a network namespace of its own. Where this user may
// make them, it is owned by a user namespace of its own, too.
func startPrivate() (*helper, error) {
	root := os.Geteuid() == 0
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var h *helper
	if err == nil && dumpable != 1 && !root {
		h, err = start(&syscall.SysProcAttr{}, nil, childSpawn+"=1")
	} else {
		h, err = start(newNamespaces(), nil)
	}
	if err == nil || !root {
		return h, refused(err)
	}
	// Root can do without the user namespace.
	h, second := start(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, nil)
	if second != nil {
		return nil, refused(err)
	}
	return h, nil
}

// newNamespaces has a process begin in a user and a network namespace of its own.
func newNamespaces() *syscall.SysProcAttr {
	uid, gid := os.Geteuid(), os.Getegid()
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		AmbientCaps: caps,
	}
}

// refused words why there is no private namespace.
func refused(err error) error {
	if err == nil {
		return nil
	}
	return &UnavailableError{What: "a user namespace", Err: err, Mend: mendUserNS(errno(err))}
}

// startIn starts a helper in the namespace that ns is an open file of.
func startIn(ns *os.File) (*helper, error) { return start(&syscall.SysProcAttr{}, ns) }

// start starts a helper, and waits until it is there.
func start(sys *syscall.SysProcAttr, ns *os.File, env ...string) (*helper, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "control"), os.NewFile(uintptr(ends[1]), "control")
	defer theirs.Close()
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	conn := c.(*net.UnixConn)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer null.Close()
	// It holds no file of the caller's: somebody may wait for the end of those.
	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), theirs.Fd()}
	env = append(env, childEnvironment()...)
	if ns != nil {
		files = append(files, ns.Fd())
		env = append(env, childPath+"=4")
	}
	// Ctrl-C is for the program. The helper ends when the control socket does, also
	// if we are killed: that is better than a death signal, which comes with the end
	// of the thread that has forked. It stays in our session: the scheduler would take
	// one of its own for a group (sched(7), autogroup), which on a busy machine got no
	// processor for seconds, while a program waited for its socket.
	sys.Setpgid = true
	pid, err := syscall.ForkExec("/proc/self/exe", []string{childName}, &syscall.ProcAttr{Dir: "/", Env: env, Files: files, Sys: sys})
	runtime.KeepAlive(ns)
	if err != nil {
		conn.Close()
		return nil, err
	}
	h := &helper{pid: pid, conn: conn}
	theirs.Close() // or its end would not be seen
	r, _, err := h.receive()
	if err != nil {
		h.close()
		return nil, err
	}
	h.inode = r.value
	return h, nil
}

// childEnvironment is what a helper is started with, beside what it is to do: where the
// libraries are that this executable needs, and nothing else of ours.
func childEnvironment() []string {
	env := []string{childEnv + "=3", "GOMAXPROCS=1"}
	if path, ok := os.LookupEnv("LD_LIBRARY_PATH"); ok {
		env = append(env, "LD_LIBRARY_PATH="+path)
	}
	return env
}

// ask makes a request and returns what came with the reply. The error is an
// unix.Errno, wrapped with the step that failed.
func (h *helper) ask(q request) ([]int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.conn.Write(q.encode()); err != nil {
		return nil, gone(err)
	}
	_, fds, err := h.receive()
	return fds, err
}

// gone is the error of a helper that is not there any more.
func gone(err error) error { return fmt.Errorf("helper in the namespace: %w (%w)", unix.ENETDOWN, err) }

// receive waits for a reply.
func (h *helper) receive() (r reply, fds []int, err error) {
	buf := make([]byte, replyMax)
	oob := make([]byte, unix.CmsgSpace(4*batchMax))
	var n int
	for {
		var oobn int
		n, oobn, _, _, err = h.conn.ReadMsgUnix(buf, oob)
		if err == nil && n == 0 {
			err = io.EOF
		}
		if err == nil && oobn == 0 {
			break // the reply itself
		}
		if err == nil {
			fds, err = rights(oob[:oobn], fds)
		}
		if err != nil {
			closeAll(fds)
			return r, nil, gone(err)
		}
	}
	if !r.decode(buf[:n]) {
		closeAll(fds)
		return r, nil, gone(unix.EBADMSG)
	}
	if r.errno != 0 {
		closeAll(fds)
		return r, nil, fmt.Errorf("%s: %w", r.step, r.errno)
	}
	return r, fds, nil
}

// rights adds the descriptors of a message to fds.
func rights(oob []byte, fds []int) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fds, err
	}
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// one makes a request whose reply brings one descriptor.
func (h *helper) one(q request) (int, error) {
	fds, err := h.ask(q)
	if err != nil {
		return -1, err
	}
	if len(fds) != 1 {
		closeAll(fds)
		return -1, gone(unix.EBADMSG)
	}
	return fds[0], nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// sockets makes at most n sockets, at least one.
func (h *helper) sockets(k kind, n int) ([]int, error) {
	fds, err := h.ask(request{op: opSockets, n: uint32(n), a: int32(k.family), b: int32(k.typ), c: int32(k.proto)})
	if err == nil && len(fds) == 0 {
		err = gone(unix.EBADMSG)
	}
	return fds, err
}

// tun makes a TUN or TAP device; flags are those of TUNSETIFF.
func (h *helper) tun(name string, flags uint16) (int, error) {
	return h.one(request{op: opTUN, a: int32(flags), text: name})
}

// write writes a file of the namespace's /proc/sys/net.
func (h *helper) write(name, value string) error {
	_, err := h.ask(request{op: opWrite, text: name + "\x00" + value})
	return err
}

// endTime is how long the helper may take to see that it is no longer needed.
const endTime = 2 * time.Second

// close ends the helper and waits for it. Sockets that it made live on.
func (h *helper) close() {
	h.once.Do(func() {
		h.conn.Close()
		t := time.AfterFunc(endTime, func() { _ = unix.Kill(h.pid, unix.SIGKILL) }) // not reaped yet, so it is ours
		for {
			_, err := unix.Wait4(h.pid, nil, 0, nil)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		t.Stop()
	})
}

// A kind is what socket(2) is asked for.
type kind struct{ family, typ, proto int }

// plain returns k with the protocol that 0 stands for, so that there is one kind for
// what is the same.
func (k kind) plain() kind {
	if k.proto == 0 && slices.Contains([]int{unix.AF_INET, unix.AF_INET6}, k.family) {
		switch k.typ {
		case unix.SOCK_STREAM:
			k.proto = unix.IPPROTO_TCP
		case unix.SOCK_DGRAM:
			k.proto = unix.IPPROTO_UDP
		}
	}
	return k
}
