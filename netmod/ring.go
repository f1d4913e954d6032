// SPDX-License-Identifier: Apache-2.0

// PACKET_RX_RING: memory that a program maps and that packets are put into. See
// "Rings" in doc.go.

package netmod

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/netmod/tpacket"
)

// A ring is a receive ring. The mutex of its afpacket guards it.
type ring struct {
	*tpacket.Ring
	mem   []byte // our mapping of the memory
	file  int    // our own open file description of it
	dev   uint64 // of the file
	ino   uint64
	hold  int  // a duplicate of the placeholder, while the memory is in use; else -1
	away  bool // the program's number stands for the memory, not for the placeholder
	ended bool

	wake  bool          // there is something to tell the program
	pulse bool          // wake is for nothing, see mind
	last  time.Time     // when the placeholder was readable; zero: never
	shown bool          // the placeholder is readable because of us
	look  chan struct{} // cap 1: shown has become true, or the ring has ended
	timed bool          // a timer for the current block runs
	timer *time.Timer
}

// Times of the minder.
const (
	minderSpin  = 100 * time.Microsecond
	minderLeast = time.Millisecond
	minderMost  = 10 * time.Millisecond
	minderIdle  = 250 * time.Millisecond
	minderPulse = 2 * time.Millisecond
)

// setRing is setsockopt(PACKET_RX_RING): it makes a ring and puts its memory in the
// place of the program's descriptor, to be mapped there. d is a duplicate of the
// placeholder; the mutex of s is held.
func (a *afpacket) setRing(c *intercept.Call, s *packet, d intercept.FD, v []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ring != nil {
		a.ring.settle()
	}
	if a.ring != nil && a.ring.mapped() {
		return unix.EBUSY
	}
	q, err := tpacket.Decode(int(a.opts[optionKey{unix.SOL_PACKET, unix.PACKET_VERSION}]),
		int(a.opts[optionKey{unix.SOL_PACKET, unix.PACKET_RESERVE}]), v)
	if err != nil {
		return err
	}
	if q.Blocks == 0 {
		if r := a.ring; r != nil {
			if r.away {
				if err := c.ReplaceFD(int(int32(c.Args[0])), r.hold); err != nil {
					return err
				}
			}
			a.m.forgetRing(r)
			r.free()
			a.ring = nil
		}
		return nil
	}
	if a.ring != nil {
		return unix.EBUSY
	}
	r, theirs, err := newRing(q, d)
	if err != nil {
		a.m.log.Error("make a packet ring", "err", err)
		return unix.ENOMEM
	}
	defer unix.Close(theirs)
	if err := c.ReplaceFD(int(int32(c.Args[0])), theirs); err != nil {
		r.free()
		return err
	}
	r.away = true
	r.timer = time.AfterFunc(time.Hour, func() { a.expired(r) })
	r.timer.Stop()
	// What waited is thrown away, as packet_set_ring does.
	a.queue, a.size = nil, 0
	s.inbox, s.inflight = nil, false
	r.drain()
	a.ring = r
	a.m.addRing(r, s)
	a.m.wg.Add(1)
	go a.mind(r)
	return nil
}

// newRing makes the memory. theirs is the descriptor for the program, which only it
// is to hold.
func newRing(q tpacket.Request, d intercept.FD) (r *ring, theirs int, err error) {
	r = &ring{file: -1, hold: -1, look: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			r.free()
			if theirs >= 0 {
				unix.Close(theirs)
			}
		}
	}()
	theirs, err = unix.MemfdCreate("packet-ring", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return r, -1, fmt.Errorf("memfd_create: %w", err)
	}
	if err := unix.Ftruncate(theirs, int64(q.Size())); err != nil {
		return r, theirs, fmt.Errorf("ftruncate: %w", err)
	}
	// A program that cut it short would kill us at the next write.
	if _, err := unix.FcntlInt(uintptr(theirs), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return r, theirs, fmt.Errorf("seal: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(theirs), unix.F_OFD_SETLK, &lock); err != nil {
		return r, theirs, fmt.Errorf("lock: %w", err)
	}
	r.file, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", theirs), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return r, theirs, fmt.Errorf("open again: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(r.file, &st); err != nil {
		return r, theirs, fmt.Errorf("fstat: %w", err)
	}
	r.dev, r.ino = st.Dev, st.Ino
	r.mem, err = unix.Mmap(r.file, 0, q.Size(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return r, theirs, fmt.Errorf("mmap: %w", err)
	}
	r.hold, err = unix.FcntlInt(uintptr(d.N), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return r, theirs, fmt.Errorf("dup: %w", err)
	}
	r.Ring = tpacket.New(q, r.mem, time.Now())
	return r, theirs, nil
}

// free releases everything.
func (r *ring) free() {
	r.ended = true
	r.release()
	if r.timer != nil {
		r.timer.Stop()
	}
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
		r.mem = nil
	}
	if r.file >= 0 {
		unix.Close(r.file)
		r.file = -1
	}
	r.nudge()
}

// release gives up our duplicate of the placeholder, so that its last close shows.
func (r *ring) release() {
	if r.hold >= 0 {
		unix.Close(r.hold)
		r.hold = -1
	}
}

func (r *ring) nudge() {
	select {
	case r.look <- struct{}{}:
	default:
	}
}

// mapped tells whether somebody has the memory: a descriptor, or a mapping, which
// keeps the open file description too. The lock on that ends with it.
func (r *ring) mapped() bool {
	if r.away || r.file < 0 {
		return false
	}
	return r.held()
}

func (r *ring) held() bool {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(uintptr(r.file), unix.F_OFD_GETLK, &lock)
	return err == nil && lock.Type != unix.F_UNLCK
}

// settle looks whether the memory is still in use; without it there is nothing to
// hold the placeholder for.
func (r *ring) settle() {
	if r.hold >= 0 && !r.held() {
		r.drain()
		r.release()
	}
}

// schedule starts the timer of the current block, if it has one.
func (r *ring) schedule(a *afpacket) {
	if r.timed || r.timer == nil {
		return
	}
	now := time.Now()
	if at, ok := r.Deadline(now); ok {
		r.timed = true
		r.timer.Reset(at.Sub(now))
	}
}

// tell makes the placeholder readable, through the module's end of its pair, if the
// program has something to read. The mutex of the socket is held.
func (a *afpacket) tell(peer int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.ring
	if r == nil || !r.wake || peer < 0 {
		return
	}
	r.wake = false
	if err := send(peer, nil); err != nil && err != unix.EAGAIN {
		return
	}
	if !r.shown {
		r.shown = true
		r.nudge()
	}
	r.last = time.Now()
}

// drain makes the placeholder unreadable.
func (r *ring) drain() {
	var p [1]byte
	defer func() { r.shown, r.pulse = false, false }()
	for r.hold >= 0 {
		if _, err := recvOnce(r.hold, p[:], 0); err != nil {
			break
		}
		var st [1]unix.PollFd
		st[0] = unix.PollFd{Fd: int32(r.hold), Events: unix.POLLIN}
		if n, err := unix.Poll(st[:], 0); err != nil || n == 0 || st[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
			break
		}
	}
}

// mind is the goroutine of a ring, until that ends: it makes the placeholder
// unreadable once the program has given everything back, which is a store to memory
// that nobody is told of, and finds out when the program has let go of the memory.
//
// A program may meanwhile have found the placeholder readable in vain, and now wait in
// a poll(2) without a timeout: libpcap does, in a dispatch that is called after
// select(2), and relies on the timeout of blocks. So the placeholder is made readable
// for an instant, whenever that time has passed since it last was.
func (a *afpacket) mind(r *ring) {
	defer a.m.wg.Done()
	idle := time.NewTimer(minderIdle)
	defer idle.Stop()
	for {
		a.mu.Lock()
		shown, ended := r.shown, r.ended
		a.mu.Unlock()
		if ended {
			return
		}
		if !shown {
			idle.Reset(minderIdle)
			select {
			case <-r.look:
			case <-idle.C:
				a.mu.Lock()
				if !r.ended {
					r.settle()
				}
				if r.hold >= 0 && r.Version == tpacket.V3 && !r.last.IsZero() && time.Since(r.last) >= max(r.Retire, minderIdle) && !r.wake {
					r.wake, r.pulse = true, true
					if a.notify != nil {
						a.notify(unix.POLLIN)
					}
				}
				a.mu.Unlock()
				continue
			}
		}
		a.untell(r)
	}
}

// untell waits until the program has given everything back. Most do so at once:
// hence it looks all the time at first. Then the
// time between two looks grows with the time that the program takes, so that what it
// polls in vain is a fraction of what it works.
func (a *afpacket) untell(r *ring) {
	start := time.Now()
	a.mu.Lock()
	pulse := r.pulse
	a.mu.Unlock()
	if pulse { // for long enough that a thread that wakes still finds it
		time.Sleep(minderPulse)
	}
	for {
		past := time.Since(start)
		wait := min(max(past/4, minderLeast), minderMost)
		if past < minderSpin && runtime.NumCPU() > 1 {
			runtime.Gosched()
		} else {
			time.Sleep(wait)
		}
		a.mu.Lock()
		done := r.ended || !r.shown
		if !done && !r.Pending() && !r.wake {
			r.drain()
			done = true
		}
		if !done && wait == minderMost && !r.held() {
			r.settle()
			r.shown, done = false, true
		}
		a.mu.Unlock()
		if done {
			return
		}
	}
}

// addRing lets the memory of a ring be found.
func (m *Module) addRing(r *ring, s *packet) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rings == nil {
		m.rings = make(map[uint64]*packet)
	}
	m.rings[r.ino] = s
	m.ringCount.Store(int32(len(m.rings)))
}

func (m *Module) forgetRing(r *ring) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.rings, r.ino)
	m.ringCount.Store(int32(len(m.rings)))
}

// dup duplicates the descriptor that argument 0 names. Where that stands for the
// memory of a ring the result is the socket's placeholder; and if the program has
// mapped the memory, the placeholder is put back in its place.
func (m *Module) dup(c *intercept.Call) (intercept.FD, error) {
	fd, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil || fd.Key.Cookie != 0 || m.ringCount.Load() == 0 {
		return fd, err
	}
	m.mu.Lock()
	s := m.rings[fd.Key.Ino]
	m.mu.Unlock()
	if s == nil {
		return fd, nil
	}
	return s.pkt.(*afpacket).comeBack(c, s, fd)
}

// comeBack is dup for a ring of s; fd may be a duplicate of its memory.
func (a *afpacket) comeBack(c *intercept.Call, s *packet, fd intercept.FD) (intercept.FD, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var st unix.Stat_t
	r := a.ring
	if r == nil || r.hold < 0 || unix.Fstat(fd.N, &st) != nil || st.Dev != r.dev || st.Ino != r.ino {
		return fd, nil
	}
	defer fd.Close()
	if mapsFile(c.TID, r.ino) {
		if nonblocking(fd.N) { // set on what stood there
			_ = unix.SetNonblock(r.hold, true)
		}
		if err := c.ReplaceFD(int(int32(c.Args[0])), r.hold); err != nil {
			return intercept.FD{}, err
		}
		r.away = false
	}
	n, err := unix.FcntlInt(uintptr(r.hold), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return intercept.FD{}, unix.EMFILE
	}
	return intercept.FD{N: n, Key: intercept.Key{Cookie: s.cookie}, Mode: unix.S_IFSOCK}, nil
}

// mapsFile tells whether a task has mapped a memory file, by proc_pid_maps(5).
func mapsFile(tid int, ino uint64) bool {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", tid))
	if err != nil {
		return false
	}
	defer f.Close()
	want := strconv.FormatUint(ino, 10)
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadString('\n')
		if w := strings.Fields(line); len(w) >= 6 && w[4] == want && strings.HasPrefix(w[5], "/memfd:packet-ring") {
			return true
		}
		if err == io.EOF {
			return false
		}
		if err != nil {
			return false
		}
	}
}
