// SPDX-License-Identifier: Apache-2.0

// Namespaces: a locked thread that lives in its own network and mounts.

package viewtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// An NS is a network and a mount namespace of its own. It is safe for
// concurrent use.
type NS struct {
	Name string // for messages only

	work chan func()
	done sync.WaitGroup
	tid  int
	ino  uint64 // of the network namespace
	net  *os.File
	once sync.Once
}

// newNS makes a namespace with loopback up.
func newNS(name string) (*NS, error) {
	n := &NS{Name: name, work: make(chan func())}
	ready := make(chan error, 1) // one result, so that the thread never waits for its reader
	n.done.Add(1)
	go n.thread(ready)
	if err := <-ready; err != nil {
		n.Close()
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	return n, nil
}

// thread is the life of the namespace's OS thread. It is never unlocked: its
// namespaces are not those of the process, so it must end with its goroutine.
func (n *NS) thread(ready chan<- error) {
	defer n.done.Done()
	runtime.LockOSThread()
	ready <- n.enter()
	for f := range n.work {
		f()
	}
}

func (n *NS) enter() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// A sysfs of this network namespace, for programs that read /sys/class/net.
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := openTUN(); err != nil {
		return err
	}
	n.tid = unix.Gettid()
	var err error
	if n.net, err = os.Open(n.Path()); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(n.net.Fd()), &st); err != nil {
		return err
	}
	n.ino = st.Ino
	return nil
}

// openTUN lets everyone make TUN devices, as udev does on most machines.
func openTUN() error {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return nil // tests that need one say so
	}
	if err := unix.Mount("tmpfs", "/dev/net", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755"); err != nil {
		return fmt.Errorf("mount /dev/net: %w", err)
	}
	if err := unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
		return fmt.Errorf("make /dev/net/tun: %w", err)
	}
	return os.Chmod("/dev/net/tun", 0o666) // whatever the umask
}

// Path names the network namespace, for ip(8) and setns(2).
func (n *NS) Path() string {
	return fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), n.tid)
}

// Do runs f on the namespace's thread and waits for it. f must not block for
// long: every Do of this namespace waits behind it.
func (n *NS) Do(f func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); f() }
	<-done
}

// Listen is net.Listen inside the namespace. The address must be literal.
func (n *NS) Listen(network, addr string) (ln net.Listener, err error) {
	n.Do(func() { ln, err = net.Listen(network, addr) })
	return ln, err
}

// ListenPacket is net.ListenPacket inside the namespace.
func (n *NS) ListenPacket(network, addr string) (c net.PacketConn, err error) {
	n.Do(func() { c, err = net.ListenPacket(network, addr) })
	return c, err
}

// DialContext is net.Dialer.DialContext inside the namespace, for literal
// addresses; it fits http.Transport.
func (n *NS) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	ch := make(chan result, 1) // one result; the thread must not wait for us
	go func() {                // ends with the dial, which ctx and the timeout bound
		runtime.LockOSThread() // never unlocked: the thread is in another namespace
		if err := unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET); err != nil {
			ch <- result{nil, err}
			return
		}
		d := net.Dialer{Timeout: 10 * time.Second, FallbackDelay: -1}
		c, err := d.DialContext(ctx, network, addr)
		ch <- result{c, err}
	}()
	r := <-ch
	return r.c, r.err
}

// WriteFile puts content over path, which must exist, in this namespace's mounts
// only. A second call for the same path replaces the first.
func (n *NS) WriteFile(path, content string) error {
	f, err := os.CreateTemp("", "umrun-lab-file")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // the bind mount keeps the inode
	if _, err := f.WriteString(content); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	n.Do(func() {
		if real, e := filepath.EvalSymlinks(path); e == nil {
			path = real
		}
		// What an earlier call put there has no name left, and nothing can be
		// mounted over that.
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Nlink == 0 {
			err = unix.Unmount(path, unix.MNT_DETACH)
		}
		if err != nil {
			return
		}
		err = unix.Mount(f.Name(), path, "", unix.MS_BIND, "")
	})
	if err != nil {
		return fmt.Errorf("mount over %s: %w", path, err)
	}
	return nil
}

// Tmpfs mounts an empty directory over dir in this namespace's mounts only.
func (n *NS) Tmpfs(dir string) (err error) {
	n.Do(func() { err = unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755") })
	return err
}

// Sysctl sets net.* variables of the namespace.
func (n *NS) Sysctl(pairs ...string) (err error) {
	n.Do(func() {
		for _, p := range pairs {
			k, v, _ := strings.Cut(p, "=")
			file := "/proc/sys/" + strings.ReplaceAll(k, ".", "/")
			if e := os.WriteFile(file, []byte(v), 0); e != nil {
				err = errors.Join(err, e)
			}
		}
	})
	return err
}

// Pids lists the processes whose network namespace this is.
func (n *NS) Pids() []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		var st unix.Stat_t
		if pid == os.Getpid() || unix.Stat(d+"/ns/net", &st) != nil {
			continue
		}
		if st.Ino == n.ino {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Close kills what runs in the namespace and ends its thread. Twice is fine.
func (n *NS) Close() {
	n.once.Do(func() {
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
			pids := n.Pids()
			if len(pids) == 0 {
				break
			}
			for _, pid := range pids {
				unix.Kill(pid, unix.SIGKILL) // in a namespace that we made: ours
			}
			time.Sleep(5 * time.Millisecond)
		}
		close(n.work)
		n.done.Wait()
		if n.net != nil {
			n.net.Close()
		}
	})
}
