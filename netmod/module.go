// SPDX-License-Identifier: Apache-2.0

// The module: its configuration, its table of sockets, its end.

package netmod

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// A Resolver answers DNS queries for the program.
type Resolver interface {
	// Answer returns the reply to a query in wire format, or nil for none. tcp
	// says that the reply is not bound to the size of a datagram.
	Answer(ctx context.Context, query []byte, tcp bool) []byte
}

// A Doorkeeper judges where AF_UNIX sockets of the program may connect to.
type Doorkeeper interface {
	// Judge returns nil to let the call go on, or the errno to answer. sa is the
	// copied sockaddr_un.
	Judge(task *intercept.Task, sa []byte) error

	// JudgeFile is Judge of the file that an address was found to lead to, which is open
	// with O_PATH.
	JudgeFile(fd int) error
}

// Config is what a Module needs. Log must be set.
type Config struct {
	Stack stacks.Stack // serves every inet socket; the module does not close it

	// Resolver, if set, serves port 53 of each address in ResolverAddrs, instead
	// of the stack, over UDP and TCP. Zones are not compared.
	Resolver      Resolver
	ResolverAddrs []netip.Addr

	Doors Doorkeeper // nil: every AF_UNIX address is allowed
	Log   *slog.Logger

	// Active, if set, is called whenever the program has written or read what others
	// wait for; it must be quick.
	Active func()

	// Opened and Closed, if set, are told of ports that the program serves. They are
	// called with locks held, and must be quick.
	Opened, Closed func(Opening)

	Owners bool // remember who made each socket, for [Module.Owner]
}

// A Module serves the socket calls of one target.
type Module struct {
	conf      Config
	paths     Paths // nil: the kernel's; set before Rules
	stack     stacks.Stack
	kernel    stacks.KernelStack // the same, if the program gets its sockets; else nil
	bars      bool               // the kernel keeps the program from binding those of TCP
	chooser   stacks.Chooser     // the same, if it matters to it who makes a socket; else nil
	log       *slog.Logger
	netns     uint64 // inode of the network namespace that the supervisor is in
	pump      *pump
	meet      *rendezvous
	live      *liveness
	closes    *closes
	strangers *strangers
	filler    [fillerLen]byte
	stub      *stub
	ctx       context.Context // alive until Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup // goroutines of single answers

	ports netlinkPorts

	bypasses atomic.Int64 // streams whose bytes go past the stack

	install    sync.Mutex   // one socket of a kernel stack at a time, where it is waited for
	installing atomic.Int32 // those that wait or are being installed

	changing  sync.Mutex   // one request to rtnetlink at a time
	expiry    *time.Timer  // when the life of an address ends; +checklocks:changing
	told      stacks.State // what those who listen know of the stack; +checklocks:changing
	unnotify  func()       // ends the stack's notices; may be nil
	names     ifNames      // of HasInterface
	ringCount atomic.Int32 // of rings, to look at without a lock

	mu      sync.Mutex // guards what follows
	sockets map[uint64]socket
	rings   map[uint64]*packet          // by the inode of the memory
	owners  map[uint64]Owner            // of sockets of a kernel stack, by their cookies
	leaving map[stacks.Unacked]struct{} // closed by the program, not yet by the peer
	closed  bool
	warned  map[string]bool
}

// New makes a module. Close ends it.
func New(conf Config) (*Module, error) {
	if conf.Stack == nil || conf.Log == nil {
		return nil, errors.New("netmod: a stack and a log are needed")
	}
	m := &Module{
		conf:    conf,
		stack:   conf.Stack,
		log:     conf.Log,
		sockets: make(map[uint64]socket),
		leaving: make(map[stacks.Unacked]struct{}),
		warned:  make(map[string]bool),
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return nil, fmt.Errorf("stat /proc/self/ns/net: %w", err)
	}
	m.netns = st.Ino
	m.kernel, _ = conf.Stack.(stacks.KernelStack)
	m.bars = m.kernel != nil && intercept.HasDomains()
	m.chooser, _ = conf.Stack.(stacks.Chooser)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	var err error
	if m.meet, err = newRendezvous(); err != nil {
		return nil, fmt.Errorf("rendezvous of placeholders: %w", err)
	}
	if m.pump, err = newPump(conf.Active); err != nil {
		m.meet.close()
		return nil, err
	}
	if m.live, err = newLiveness(m); err != nil {
		m.pump.close()
		m.meet.close()
		return nil, err
	}
	m.closes = newCloses(m)
	m.strangers = newStrangers()
	_, _ = rand.Read(m.filler[:]) // cannot fail
	m.stub = newStub(m)
	m.hearStack()
	return m, nil
}

// find returns the socket whose placeholder d is a duplicate of, or nil.
func (m *Module) find(d intercept.FD) socket {
	if d.Key.Cookie == 0 {
		return nil
	}
	m.live.active()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sockets[d.Key.Cookie]
}

// An identity is what the kernel knows a placeholder by.
type identity struct{ cookie, inode uint64 }

// identify returns the identity of the placeholder fd.
func identify(fd int) (identity, error) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return identity{}, fmt.Errorf("getsockopt SO_COOKIE: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return identity{}, fmt.Errorf("fstat: %w", err)
	}
	return identity{cookie, st.Ino}, nil
}

// enter puts b into the table under the cookie of its placeholder, which liveness
// must be watching by then if it is to watch it at all.
func (m *Module) enter(b *base, id identity) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b.cookie, b.inode = id.cookie, id.inode
	if m.closed {
		return unix.ENETDOWN
	}
	m.sockets[id.cookie] = b.self
	m.strangers.forget(id.cookie)
	return nil
}

// move enters b under the cookie of its new placeholder instead of the old one.
func (m *Module) move(b *base, id identity) error {
	m.mu.Lock()
	delete(m.sockets, b.cookie)
	m.mu.Unlock()
	return m.enter(b, id)
}

// leave takes s out of the table.
func (m *Module) leave(s socket) {
	m.mu.Lock()
	delete(m.sockets, s.common().cookie)
	m.mu.Unlock()
	m.pump.forget(&s.common().job)
}

// linger keeps a closed endpoint in mind until its peer has acknowledged all.
func (m *Module) linger(ep stacks.Socket) {
	u, ok := ep.(stacks.Unacked)
	if !ok {
		return
	}
	if _, done := u.Unacked(); done {
		return
	}
	m.mu.Lock()
	if len(m.leaving) > 256 { // forget those that have ended
		for u := range m.leaving {
			if _, done := u.Unacked(); done {
				delete(m.leaving, u)
			}
		}
	}
	m.leaving[u] = struct{}{}
	m.mu.Unlock()
}

// warnOnce logs a warning the first time that key is seen.
func (m *Module) warnOnce(key, msg string, args ...any) {
	m.mu.Lock()
	seen := m.warned[key]
	m.warned[key] = true
	m.mu.Unlock()
	if !seen {
		m.log.Warn(msg, args...)
	}
}

// Times of Drain.
const (
	drainTotal = 60 * time.Second // the longest it waits
	drainQuiet = 2 * time.Second  // without an acknowledgement, before it tells
	drainTick  = 10 * time.Millisecond
)

// ErrUndelivered is what Drain returns when data was left behind.
var ErrUndelivered = errors.New("data was written that the peer has not acknowledged")

// Drain waits, after the last task has ended, until what the program wrote was
// acknowledged by its peers. It gives up when ctx ends or after 60 s, and then
// returns an error that wraps ErrUndelivered and says how much. tell, if not nil, is
// called once when nothing has been acknowledged for 2 s.
func (m *Module) Drain(ctx context.Context, tell func(bytes, sockets int)) error {
	start := time.Now()
	last, moved := -1, start
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for {
		bytes, n := m.undelivered()
		if n == 0 {
			return nil
		}
		if bytes != last {
			last, moved = bytes, time.Now()
		}
		if time.Since(moved) > drainQuiet {
			if bytes == 0 {
				return nil // every byte has arrived; only a FIN finds nobody
			}
			if tell != nil {
				tell(bytes, n)
				tell = nil
			}
		}
		if time.Since(start) > drainTotal {
			return fmt.Errorf("%w: %d bytes on %d connections", ErrUndelivered, bytes, n)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %d bytes on %d connections", ErrUndelivered, bytes, n)
		case <-tick.C:
		}
	}
}

// undelivered sums what is still on its way: bytes in placeholders and in send
// queues, on n sockets.
func (m *Module) undelivered() (bytes, n int) {
	m.mu.Lock()
	socks := make([]socket, 0, len(m.sockets))
	for _, s := range m.sockets {
		socks = append(socks, s)
	}
	m.mu.Unlock()
	for _, s := range socks {
		if b, busy := s.pending(); busy {
			bytes += b
			n++
		}
	}
	// Looked at last: a socket that was released meanwhile is here by now.
	m.mu.Lock()
	left := make([]stacks.Unacked, 0, len(m.leaving))
	for u := range m.leaving {
		left = append(left, u)
	}
	m.mu.Unlock()
	for _, u := range left {
		b, done := u.Unacked()
		if done {
			m.mu.Lock()
			delete(m.leaving, u)
			m.mu.Unlock()
			continue
		}
		bytes += b
		n++
	}
	if l, ok := m.stack.(stacks.Lingerer); ok {
		b, k := l.Undelivered()
		bytes += b
		n += k
	}
	return bytes, n
}

// Close ends every socket, which the program sees as a broken connection, and
// waits for the module's goroutines. It does not close the stack.
func (m *Module) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	socks := make([]socket, 0, len(m.sockets))
	for _, s := range m.sockets {
		socks = append(socks, s)
	}
	m.mu.Unlock()
	m.cancel()
	if m.unnotify != nil {
		m.unnotify()
	}
	m.stopExpiry()
	m.live.close()
	m.pump.close()
	for _, s := range socks {
		s.destroy()
	}
	m.wg.Wait()
	m.closes.close()
	m.strangers.close()
	m.meet.close()
	return nil
}
