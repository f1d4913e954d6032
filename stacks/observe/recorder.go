// SPDX-License-Identifier: Apache-2.0

// The recorder: from a stack's tap to files, without anybody waiting.

package observe

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// An Owner is the process that has made a socket.
type Owner struct {
	PID     int
	Program string // comm, proc_pid_comm(5)
	Socket  uint64 // the inode number that the program sees
}

// Config says what is recorded of a network, and where.
type Config struct {
	Network  string // its name in the view
	Stack    stacks.Stack
	Captures []*Capture
	Flows    *Flows // nil: none

	// Owner, if set, says whose a flow is. It is called by the recorder's goroutine
	// and may take its time.
	Owner func(Flow) (Owner, bool)

	Log *slog.Logger
}

// bufferMax bounds what waits to be written, bytes.
const bufferMax = 32 << 20

// idleTick is how often flows are looked at that have gone silent.
const idleTick = 5 * time.Second

// A Recorder records one network. Its goroutine runs until Close.
type Recorder struct {
	conf    Config
	ids     []map[int]int // for each capture: interface index to its number in the file
	untap   func()
	wake    chan struct{} // capacity 1: there is something
	quit    chan struct{}
	done    sync.WaitGroup
	once    sync.Once
	owners  map[Flow]*ownership
	failed  error
	names   map[int]string // of interfaces
	dropped uint64         // as read last

	mu      sync.Mutex
	waiting []packet // guarded by mu
	bytes   int      // of waiting, guarded by mu
	lost    uint64   // packets, guarded by mu
}

// An ownership is what was learned of a flow.
type ownership struct {
	owner Owner
	known bool
	asked int
	told  bool // in the captures
	last  time.Time
}

// Start begins to record. EOPNOTSUPP says that the stack cannot be tapped, EPERM that
// others than the view would be heard.
func Start(conf Config) (*Recorder, error) {
	r := &Recorder{
		conf:   conf,
		wake:   make(chan struct{}, 1),
		quit:   make(chan struct{}),
		owners: make(map[Flow]*ownership),
		names:  make(map[int]string),
		ids:    make([]map[int]int, len(conf.Captures)),
	}
	for i := range r.ids {
		r.ids[i] = make(map[int]int)
	}
	for _, ifc := range conf.Stack.State().Interfaces {
		if ifc.Loop {
			continue
		}
		if err := r.enter(&ifc); err != nil {
			return nil, err
		}
	}
	switch t := conf.Stack.(type) {
	case stacks.Tapper:
		r.untap = t.Tap(r.take)
	case packetSocket:
		var err error
		if r.untap, err = t.Tap(r.take); err != nil {
			return nil, fmt.Errorf("record %s: %w", conf.Network, err)
		}
	default:
		return nil, fmt.Errorf("record %s: its packets cannot be seen: %w", conf.Network, unix.EOPNOTSUPP)
	}
	r.done.Go(r.run)
	return r, nil
}

// A packetSocket is a kernel stack, whose packets a packet socket shows.
type packetSocket interface {
	Tap(f func(*stacks.Frame)) (stop func(), err error)
}

// enter writes an interface into the captures.
func (r *Recorder) enter(ifc *stacks.Interface) error {
	r.names[ifc.Index] = ifc.Name
	for i, c := range r.conf.Captures {
		id, err := c.addInterface(r.conf.Network, ifc)
		if err != nil {
			return err
		}
		r.ids[i][ifc.Index] = id
	}
	return nil
}

// take copies a packet; it runs with locks of the stack held.
func (r *Recorder) take(f *stacks.Frame) {
	if f.Loop {
		return
	}
	p := packet{at: time.Unix(0, f.Stamp), ifIndex: f.IfIndex, out: f.Outgoing, undone: f.Unsummed, header: len(f.Header)}
	if f.Stamp == 0 {
		p.at = time.Now()
	}
	r.mu.Lock()
	if r.bytes+len(f.Header)+len(f.Data) > bufferMax {
		r.lost++
		r.mu.Unlock()
		return
	}
	p.frame = append(append(make([]byte, 0, len(f.Header)+len(f.Data)), f.Header...), f.Data...)
	r.waiting = append(r.waiting, p)
	r.bytes += len(p.frame)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run writes what was taken until Close.
func (r *Recorder) run() {
	tick := time.NewTicker(idleTick)
	defer tick.Stop()
	for {
		select {
		case <-r.wake:
			r.drain()
		case now := <-tick.C:
			r.forget(now)
			if r.conf.Flows != nil {
				r.conf.Flows.expire(r.conf.Network, now)
			}
		case <-r.quit:
			r.drain()
			return
		}
	}
}

// drain writes what waits.
func (r *Recorder) drain() {
	r.mu.Lock()
	ps, lost := r.waiting, r.lost
	r.waiting, r.bytes = nil, 0
	r.mu.Unlock()
	r.dropped = lost
	for i := range ps {
		if err := r.write(&ps[i]); err != nil && r.failed == nil {
			r.failed = err
			r.conf.Log.Error("what passes the network is no longer recorded", "network", r.conf.Network, "err", err)
		}
	}
	for _, c := range r.conf.Captures {
		if err := c.flush(); err != nil && r.failed == nil {
			r.failed = err
		}
	}
}

// write records one packet.
func (r *Recorder) write(p *packet) error {
	if _, ok := r.names[p.ifIndex]; !ok { // it came later
		for _, ifc := range r.conf.Stack.State().Interfaces {
			if ifc.Index == p.ifIndex {
				if err := r.enter(&ifc); err != nil {
					return err
				}
			}
		}
	}
	x, ok := parse(p)
	var own *ownership
	comment := ""
	if ok {
		if x.begins() {
			delete(r.owners, x.flow) // the ports may be another's now
		}
		own = r.ownerOf(x.flow, p.at)
		if own.known && !own.told {
			own.told = true
			comment = fmt.Sprintf("%s: %s, process %d, socket %d", r.conf.Network, own.owner.Program, own.owner.PID, own.owner.Socket)
		}
	}
	if r.conf.Flows != nil && ok {
		r.conf.Flows.see(r.conf.Network, r.names[p.ifIndex], p, x, own)
	}
	if len(r.conf.Captures) == 0 {
		return nil
	}
	finish(p)
	var errs []error
	for i, c := range r.conf.Captures {
		if id, ok := r.ids[i][p.ifIndex]; ok {
			errs = append(errs, c.write(id, p, comment))
		}
	}
	return errors.Join(errs...)
}

// askMost is how often one asks whose a flow is: its first packets may be there
// before the socket has its name.
const askMost = 5

// ownerOf returns what is known of a flow's owner.
func (r *Recorder) ownerOf(f Flow, at time.Time) *ownership {
	o := r.owners[f]
	if o == nil {
		o = new(ownership)
		r.owners[f] = o
	}
	o.last = at
	if !o.known && o.asked < askMost && r.conf.Owner != nil {
		o.asked++
		o.owner, o.known = r.conf.Owner(f)
	}
	return o
}

// forget drops the owners of flows that are over: the same ports may be another's.
func (r *Recorder) forget(now time.Time) {
	for f, o := range r.owners {
		if now.Sub(o.last) > flowIdle {
			delete(r.owners, f)
		}
	}
}

// Close stops, after everything that was taken has been written, and says what was
// lost. It does not close files. Twice is fine.
func (r *Recorder) Close() error {
	r.once.Do(func() {
		r.untap()
		close(r.quit)
		r.done.Wait()
		if r.conf.Flows != nil {
			r.conf.Flows.end(r.conf.Network)
		}
		if r.dropped > 0 {
			r.conf.Log.Warn("not every packet was recorded: the disk was too slow", "network", r.conf.Network, "lost", r.dropped)
		}
		for i, c := range r.conf.Captures {
			for _, id := range r.ids[i] {
				if err := c.statistics(id, r.dropped); err != nil && r.failed == nil {
					r.failed = err
				}
			}
		}
	})
	return r.failed
}

// zone takes away the zone of a link-local address, which no packet has.
func zone(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone("").Unmap(), a.Port())
}

// Matches tells whether a socket with these names, as getsockname(2) and getpeername(2)
// say them, is one whose flow f is; exactly says that it is connected so.
func (f Flow) Matches(local, remote netip.AddrPort) (matches, exactly bool) {
	local, remote = zone(local), zone(remote)
	if local.Port() != f.Local.Port() {
		return false, false
	}
	if local.Addr().IsValid() && !local.Addr().IsUnspecified() && local.Addr() != f.Local.Addr() {
		return false, false
	}
	if !remote.Addr().IsValid() || remote.Port() == 0 {
		return true, false
	}
	return remote == f.Remote, remote == f.Remote
}
