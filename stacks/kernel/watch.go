// SPDX-License-Identifier: Apache-2.0

// Who is told of events: one epoll set for all sockets of a stack.

package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A watcher tells of events by one goroutine, which waits for the epoll set in the
// runtime's own, so that no processor is held meanwhile.
type watcher struct {
	file *os.File // of the epoll set
	raw  syscall.RawConn
	wg   sync.WaitGroup

	mu   sync.Mutex // guards what follows; never held across a call of f
	next uint64     // numbers are never used again
	subs map[uint64]*subscription
}

// A subscription is one Watch. It has a descriptor of its own, since a file can be in
// an epoll set once for each.
type subscription struct {
	fd int
	f  func(fd int, ev stacks.Events)
}

func newWatcher() (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that the runtime takes it
		unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "epoll"), subs: make(map[uint64]*subscription)}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w.wg.Go(w.run)
	return w, nil
}

// add begins a subscription. f is given its descriptor, which is closed by stop.
func (w *watcher) add(fd int, mask stacks.Events, f func(fd int, ev stacks.Events)) (stop func(), err error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.next++
	id := w.next
	w.subs[id] = &subscription{dup, f}
	w.mu.Unlock()
	ev := unix.EpollEvent{Events: uint32(mask) | unix.EPOLLET, Fd: int32(uint32(id)), Pad: int32(id >> 32)}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			w.mu.Lock()
			_, mine := w.subs[id]
			delete(w.subs, id)
			w.mu.Unlock()
			if !mine {
				return // close has done it
			}
			_ = w.raw.Control(func(ep uintptr) { _ = unix.EpollCtl(int(ep), unix.EPOLL_CTL_DEL, dup, nil) })
			unix.Close(dup)
		})
	}
	cerr := w.raw.Control(func(ep uintptr) { err = unix.EpollCtl(int(ep), unix.EPOLL_CTL_ADD, dup, &ev) })
	if err = errors.Join(cerr, err); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// run is the goroutine.
func (w *watcher) run() {
	var evs [64]unix.EpollEvent
	_ = w.raw.Read(func(ep uintptr) bool {
		for {
			n, err := unix.EpollWait(int(ep), evs[:], 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n == 0 {
				return err != nil // else wait; closing ends that
			}
			for _, e := range evs[:n] {
				id := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
				w.mu.Lock()
				s := w.subs[id]
				w.mu.Unlock()
				if s != nil {
					s.f(s.fd, stacks.Events(e.Events))
				}
			}
		}
	})
}

// close ends the goroutine and all subscriptions.
func (w *watcher) close() {
	w.file.Close()
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, s := range w.subs {
		unix.Close(s.fd)
		delete(w.subs, id)
	}
}
