// SPDX-License-Identifier: Apache-2.0

// Moving the bytes of one TCP connection between the view and the host.

package nat

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"umrun/stacks"
)

// chunk is the most that is moved at a time, the size of a super-segment.
const chunk = 64 << 10

// A flow is a TCP connection of the view and the host's connection that it goes
// on in. Two goroutines move its bytes and hold no buffer while they wait:
//
//	up:   ep.Read --> write(2);  FIN --> shutdown(2)
//	down: read(2) --> ep.Write;  EOF --> FIN
//
// A reset on either side is one on the other. Each direction notices the errors
// of what it reads and writes; what neither would notice is watched for: an
// error of ep by events, which cut short a wait for the host by its deadline,
// and one of the host, after its EOF, by down (see lastWords).
//
// Instead, the bytes may be moved by whoever has the other end of ep, see [shortcut].
type flow struct {
	l    *Link
	name flowName
	host stacks.UpstreamConn // the host's TCP connection; nil if it was reset before the view's handshake
	rc   syscall.RawConn
	wq   waiter.Queue // of ep

	mu   sync.Mutex
	ep   tcpip.Endpoint // +checklocks:mu, nil during the handshake
	gone bool           // +checklocks:mu, reset was called

	readable chan struct{} // ep's events; capacity 1, a hint is never lost
	writable chan struct{}
	dead     chan struct{} // closed by reset

	short atomic.Pointer[shortcut]         // that is out, or asked for
	sent  atomic.Bool                      // the view's end of file was handed on
	ended atomic.Bool                      // the host's end of file was read
	moved struct{ up, down atomic.Uint64 } // bytes that up and down have moved
}

// A flowName tells flows apart.
type flowName struct{ view, dst addrPort }

func newFlow(l *Link, name flowName, host stacks.UpstreamConn) *flow {
	return &flow{
		l: l, name: name, host: host,
		readable: make(chan struct{}, 1),
		writable: make(chan struct{}, 1),
		dead:     make(chan struct{}),
	}
}

// resetHost closes the host's side with RST: SO_LINGER of zero, socket(7).
func (f *flow) resetHost() {
	if f.host == nil {
		return
	}
	_ = f.host.SetLinger(0)
	_ = f.host.Close()
}

// leave ends the connection when the link closes. What the view has sent to its end the
// host's kernel goes on to deliver; anything else is a reset.
func (f *flow) leave() {
	if f.sent.Load() {
		f.mu.Lock()
		again, ep := f.gone, f.ep
		f.gone = true
		f.mu.Unlock()
		if !again {
			close(f.dead)
			_ = f.host.Close()
			ep.Abort()
		}
		return
	}
	f.reset()
}

// carried is what is between the view, for which it is acknowledged, and the host.
func (f *flow) carried() int {
	f.mu.Lock()
	ep, gone := f.ep, f.gone
	f.mu.Unlock()
	if ep == nil || gone {
		return 0
	}
	if f.sent.Load() {
		if h, ok := f.host.(stacks.Holder); ok {
			return h.Held()
		}
		return 0
	}
	n, err := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
	if err != nil {
		n = 0
	}
	return n + 1
}

// Carried implements [stacks.Carrier].
func (l *Link) Carried(local, remote addrPort) int {
	if f := l.flows.find(local, remote); f != nil {
		return f.carried()
	}
	return 0
}

// reset ends the connection on both sides with RST.
func (f *flow) reset() {
	f.mu.Lock()
	again, ep := f.gone, f.ep
	f.gone = true
	f.mu.Unlock()
	if again {
		return
	}
	close(f.dead)
	f.resetHost()
	if ep != nil {
		ep.Abort()
	}
	f.l.stats.tcpReset.Add(1)
}

// NotifyEvent implements waiter.EventListener. It may run with locks of the
// stack held, and does no more than wake.
func (f *flow) NotifyEvent(mask waiter.EventMask) {
	if mask&(waiter.ReadableEvents|waiter.EventErr|waiter.EventHUp) != 0 {
		select {
		case f.readable <- struct{}{}:
		default:
		}
	}
	if mask&(waiter.WritableEvents|waiter.EventErr|waiter.EventHUp) != 0 {
		select {
		case f.writable <- struct{}{}:
		default:
		}
	}
	if mask&(waiter.EventErr|waiter.EventHUp) != 0 {
		_ = f.host.SetDeadline(longAgo)
	}
}

var longAgo = time.Unix(1, 0)

// relay moves bytes until both directions have ended; it then owns neither
// side any more.
func (f *flow) relay(ep tcpip.Endpoint) {
	rc, err := f.host.SyscallConn()
	f.mu.Lock()
	gone := f.gone
	f.ep, f.rc = ep, rc
	f.mu.Unlock()
	if gone || err != nil {
		ep.Abort()
		f.resetHost()
		return
	}
	ep.SocketOptions().SetDelayOption(false) // Nagle is the business of the ends
	var entry waiter.Entry
	entry.Init(f, waiter.ReadableEvents|waiter.WritableEvents|waiter.EventErr|waiter.EventHUp)
	f.wq.EventRegister(&entry)
	defer f.wq.EventUnregister(&entry)

	down := make(chan struct{})
	f.l.wg.Add(1)
	go func() {
		defer f.l.wg.Done()
		defer close(down)
		f.down(ep)
	}()
	f.up(ep)
	<-down
	f.mu.Lock()
	gone = f.gone
	f.mu.Unlock()
	if !gone {
		_ = f.host.Close()
		ep.Close()
	}
}

// up moves bytes from the view to the host.
func (f *flow) up(ep tcpip.Endpoint) {
	var w hostWriter
	for {
		var res tcpip.ReadResult
		var terr tcpip.Error
		err := f.rc.Write(func(fd uintptr) bool {
			w = hostWriter{fd: int(fd)}
			res, terr = ep.Read(&w, tcpip.ReadOptions{})
			return !w.full || res.Count > 0
		})
		if res.Count > 0 {
			f.moved.up.Add(uint64(res.Count))
			if s := f.short.Load(); s != nil {
				s.changed()
			}
			f.l.stats.tcpOut.Add(uint64(res.Count))
			ep.ModerateRecvBuf(res.Count)
		}
		if err != nil {
			if !f.goOn(ep, err) {
				return
			}
			continue
		}
		if w.err != nil {
			f.reset()
			return
		}
		switch terr.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			select {
			case <-f.readable:
			case <-f.dead:
				return
			}
		case *tcpip.ErrClosedForReceive:
			// The program may be gone altogether, which its stack tells only when
			// asked: otherwise a silent server would hold this flow for ever.
			idle := tcpip.KeepaliveIdleOption(keepIdle)
			_ = ep.SetSockOpt(&idle)
			ep.SocketOptions().SetKeepAlive(true)
			_ = f.host.CloseWrite()
			f.sent.Store(true)
			return
		default:
			f.reset()
			return
		}
	}
}

// down moves bytes from the host to the view.
func (f *flow) down(ep tcpip.Endpoint) {
	var r hostReader
	for {
		if s := f.short.Load(); s != nil && !f.stepAside(s, func() bool { return viewFailed(ep) }) {
			return
		}
		var n int64
		var terr tcpip.Error
		err := f.rc.Read(func(fd uintptr) bool {
			if !r.look(int(fd)) {
				return false
			}
			if r.n > 0 {
				n, terr = ep.Write(&r, tcpip.WriteOptions{})
			}
			return true
		})
		switch {
		case err != nil:
			if !f.goOn(ep, err) {
				return
			}
			continue
		case r.err != nil:
			f.reset()
			return
		case r.eof:
			f.ended.Store(true)
			if a, ok := f.host.(stacks.Aborter); ok && a.Aborted() {
				f.reset()
				return
			}
			if terr := ep.Shutdown(tcpip.ShutdownWrite); terr != nil {
				f.reset()
				return
			}
			f.lastWords(ep)
			return
		}
		switch terr.(type) {
		case nil:
			f.moved.down.Add(uint64(n))
			f.l.stats.tcpIn.Add(uint64(n))
		case *tcpip.ErrWouldBlock:
			select {
			case <-f.writable:
			case <-f.dead:
				return
			}
		default:
			f.reset()
			return
		}
	}
}

// lastWords waits, after the host's EOF, until its connection is over, for it
// may still end in a reset. POLLHUP is there once both directions are shut down.
func (f *flow) lastWords(ep tcpip.Endpoint) {
	var failed bool
	for {
		err := f.rc.Read(func(fd uintptr) bool {
			fds := []unix.PollFd{{Fd: int32(fd)}}
			if n, err := unix.Poll(fds, 0); err != nil || n == 0 {
				return false
			}
			if fds[0].Revents&unix.POLLERR != 0 {
				e, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
				failed = err != nil || e != 0
			}
			return true
		})
		if failed {
			f.reset()
			return
		}
		if err == nil || !f.goOn(ep, err) {
			return
		}
	}
}

// goOn looks into the failure of a wait for the host; false means that the flow
// has been reset.
func (f *flow) goOn(ep tcpip.Endpoint, err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// Deadline first, state second: NotifyEvent sees them in the other order.
		if f.host.SetDeadline(time.Time{}) == nil && !viewFailed(ep) {
			return true
		}
	}
	f.reset()
	return false
}

// viewFailed reports whether the view's side was reset, or timed out.
func viewFailed(ep tcpip.Endpoint) bool {
	return tcp.EndpointState(ep.State()) == tcp.StateError
}

// A hostWriter writes to a non-blocking socket; a partial write is
// io.ErrShortWrite, as the private stack expects.
type hostWriter struct {
	fd   int
	full bool
	err  error
}

func (w *hostWriter) Write(p []byte) (int, error) {
	n, err := ignoringEINTR(func() (int, error) { return unix.Write(w.fd, p) })
	switch {
	case err == unix.EAGAIN:
		w.full = true
		return 0, io.ErrShortWrite
	case err != nil:
		w.err = err
		return 0, err
	case n < len(p):
		w.full = true
		return n, io.ErrShortWrite
	}
	return n, nil
}

// A hostReader is the tcpip.Payloader that reads a socket straight into the
// private stack's buffers. It promises what the socket has, no more: the stack
// would wait for the rest with its buffers allocated.
type hostReader struct {
	fd  int
	n   int
	eof bool
	err error
}

// look finds out what fd has; false means that it has to be waited for.
func (r *hostReader) look(fd int) bool {
	r.fd, r.n = fd, 0 // what an earlier look has promised, a shortcut may have taken
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		r.err = err
		return true
	}
	if n == 0 {
		// Nothing, the end, or an error: a read tells them apart.
		var b [1]byte
		m, err := ignoringEINTR(func() (int, error) {
			m, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK)
			return m, err
		})
		switch {
		case err == unix.EAGAIN:
			return false
		case err != nil:
			r.err = err
			return true
		case m == 0:
			r.eof = true
			return true
		}
		n = m
	}
	r.n = min(n, chunk)
	return true
}

func (r *hostReader) Len() int { return r.n }

// Read may be asked for nothing first, and must not take that for the end.
func (r *hostReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.n == 0 {
		return 0, io.EOF
	}
	p = p[:min(len(p), r.n)]
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(r.fd, p) })
	if err != nil {
		r.err = err
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	r.n -= n
	return n, nil
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
