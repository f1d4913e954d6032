// SPDX-License-Identifier: Apache-2.0

// The notify loop: receives calls, runs their handlers, sends the answers.

package intercept

import (
	"cmp"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A notifier is the seccomp [Backend]: one listener and everything that is served
// by it. Its goroutines are the receiver and the watcher of parked calls; close
// waits for both.
type notifier struct {
	l        listener
	log      *slog.Logger
	meter    *Meter // nil: nobody counts
	rules    *table
	tasks    *taskCache
	watch    *watcher
	trace    *tracer
	nudge    func() // has the family look again; set by serve
	killable bool   // a thread whose call was received is interrupted by fatal signals only
	sync     error  // why the kernel does not hand over synchronously; nil: it does

	wg       sync.WaitGroup
	stopping atomic.Bool
	rushes   rush
	ended    chan struct{} // closed when the last receiver has ended

	turn     atomic.Pointer[receiver] // who receives
	guarding atomic.Bool              // the guard looks
	guarded  chan struct{}            // wakes it; for one, who need not wait for it
	lost     atomic.Int32             // receivers whose turn was given to others

	silentAfter int // see there

	deniedOnce sync.Map // thread groups that were complained about
}

// newNotifier serves the listener fd, which it owns, until close.
func newNotifier(fd int, rules Rules, cfg *Config) (*notifier, error) {
	tasks, err := newTaskCache()
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	n := &notifier{
		log:   cfg.Log,
		meter: cfg.Meter,
		rules: newTable(rules),
		tasks: tasks,
		trace: newTracer(),
		nudge: func() {},
		ended: make(chan struct{}),

		silentAfter: cmp.Or(cfg.silentAfter, silentAfter),

		killable: !cfg.interruptible,
		guarded:  make(chan struct{}, 1),
		rushes:   rush{waiting: cfg.Waiting, hurry: make(chan struct{}, 1), passed: make(chan *notification)},
	}
	if n.watch, err = newWatcher(n); err != nil {
		tasks.close()
		unix.Close(fd)
		return nil, err
	}
	if err := n.l.init(fd); err != nil {
		n.watch.nap.close()
		tasks.close()
		unix.Close(fd)
		return nil, err
	}
	n.sync = n.l.setSync(true)
	n.rushes.sync.Store(true)
	n.wg.Go(n.watch.run)
	n.wg.Go(n.guard)
	n.turn.Store(new(receiver))
	go n.receive(n.turn.Load()) // until ended is closed
	return n, nil
}

// close ends the loop, takes back what is parked ([Gone]) and closes the listener:
// from then on the target's intercepted calls fail with ENOSYS.
func (n *notifier) close() {
	n.stop()
	n.wg.Wait() // the guard ends with the last receiver
	n.waitLost()
	n.tasks.close()
	n.l.close() // the tracer's threads too get an answer
	n.trace.stop()
}

// stop brings the receiver out of its wait, for good.
func (n *notifier) stop() {
	n.stopping.Store(true)
	n.l.interrupt()
	n.rushes.look()
}

// receive is the hot receiver. It waits as Go waits for sockets, and only then
// receives: a thread that waits in the ioctl keeps its P for some time, and with
// it the goroutines that the last handler made runnable, which are what sends the
// program's packets. One that parks runs them next. The kernel's hand-over on one
// processor works through poll as well.
//
// It ends with the last thread, or when it has lost its turn, see [receiver].
func (n *notifier) receive(r *receiver) {
	defer func() {
		if r.waits.CompareAndSwap(lost, over) {
			n.lost.Add(-1)
			return
		}
		n.watch.stop() // nothing will be parked any more
		close(n.ended)
	}()
	for {
		if n.rushes.on {
			if !n.rush(r) {
				return
			}
			continue
		}
		there, err := n.l.wait()
		if n.stopping.Load() {
			return
		}
		if err == nil && !there {
			return // all are gone
		}
		begin := n.meter.read()
		if err == nil {
			err = n.l.recv(&r.nt)
		}
		if err == nil {
			r.calls++
			apart := n.handle(r, &r.nt, begin)
			if !r.back() {
				return
			}
			n.rushes.on = r.window.begins(apart)
			continue
		}
		n.meter.drop()
		if !errors.Is(err, unix.ENOENT) { // else the thread was gone before its call was received
			n.failed(err)
			return
		}
	}
}

// failed has every call fail at once, as nobody will answer any more.
func (n *notifier) failed(err error) {
	n.log.Error("receive notification", "errno", err)
	n.l.close()
}

// handle answers one notification or parks it, and reports whether its rules are apart.
func (n *notifier) handle(r *receiver, nt *notification, begin reading) (apart bool) {
	tid := int(nt.pid)
	n.watch.supersede(tid)
	if r.calls%sweepEach == 0 {
		n.tasks.sweep()
	}
	arch := nt.entry()
	of := n.rules.of(arch, int(nt.nr))
	// A call that was injected goes on in any case: whether it is one costs more to ask.
	if about, ok := n.pass(r, nt, of); ok {
		n.meter.add(begin, arch, int(nt.nr), about)
		return of.apart
	}
	hs := r.handlers[:0]
	if n.trace.injected(tid, int(nt.nr), &nt.args) {
		hs = append(hs, HandlerFunc(func(*Call) Action { return Continue() }))
	} else {
		hs = of.handlers(hs, &nt.args)
	}
	c := NewCall(n, nt.id, arch, int(nt.nr), nt.args, n.tasks.get(tid))
	c.IP, c.by = nt.ip, r
	if len(hs) == 0 {
		// No rule wants it, and yet it was trapped: libseccomp adds socketcall(2)
		// to the i386 calls that it multiplexes. Nobody answers for it, so it
		// does not exist.
		_, _ = n.Reply(c, Reply{Kind: ReplyErrno, Errno: unix.ENOSYS})
		n.meter.add(begin, arch, c.NR, c.about)
		return of.apart
	}
	r.handlers = hs
	parked, err := c.Serve(hs...)
	if err != nil {
		n.panicked(err)
	}
	if parked {
		n.watch.add(c)
	}
	n.meter.add(begin, arch, c.NR, c.about)
	return of.apart
}

// apart reports whether the rules of a call are apart.
func (n *notifier) apart(nt *notification) bool { return n.rules.of(nt.entry(), int(nt.nr)).apart }

// entry is the one that the call came by.
func (nt *notification) entry() Arch {
	if nt.arch == auditI386 {
		return I386
	}
	return Native
}

// auditI386 is AUDIT_ARCH_I386, linux/audit.h.
const auditI386 = 0x40000003

// Valid implements [Backend].
func (n *notifier) Valid(c *Call) bool { return n.l.valid(c.id) }

// Reply implements [Backend].
func (n *notifier) Reply(c *Call, r Reply) (int, error) {
	resp := response{id: c.id}
	switch r.Kind {
	case ReplyInstall:
		return n.l.install(c.id, r.FD, r.CloseOnExec)
	case ReplyReturn:
		resp.val = r.Val
	case ReplyErrno:
		resp.errno = -int32(r.Errno)
	case ReplyRestart:
		resp.errno = -erestartsys
	case ReplyRepeat:
		resp.errno = -erestartnointr
	default:
		resp.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	return -1, n.sent(n.l.send(&resp), c.TID, c.NR)
}

// sent is what became of an answer to a call: nil or ErrGone.
func (n *notifier) sent(err error, tid, nr int) error {
	if err != nil && !errors.Is(err, ErrGone) {
		n.log.Error("answer a call", "tid", tid, "call", nr, "errno", err)
		return ErrGone
	}
	return err
}

// ReplaceFD implements [Backend].
func (n *notifier) ReplaceFD(c *Call, at, fd int) error {
	flags, err := fdFlags(c.TID, at)
	if err != nil {
		return err
	}
	_, err = n.l.addFD(addFD{
		id:         c.id,
		flags:      unix.SECCOMP_ADDFD_FLAG_SETFD,
		srcFD:      uint32(fd),
		newFD:      uint32(at),
		newFDFlags: flags & unix.O_CLOEXEC,
	})
	return err
}

// panicked logs what a handler did.
func (n *notifier) panicked(err error) {
	var p *PanicError
	if errors.As(err, &p) {
		n.log.Error("handler panicked", "tid", p.Call.TID, "call", p.Call.NR, "panic", p.Value, "stack", string(p.Stack))
	}
}

// denied tells, once for each thread group, that the kernel does not let us look
// at it: an execute-only program, or one of another user.
func (n *notifier) denied(c *Call, call string) {
	tgid := c.Task.TGID()
	if _, told := n.deniedOnce.LoadOrStore(tgid, true); !told {
		n.log.Warn("the program may not be read: calls that need its memory or descriptors fail", "pid", tgid, "call", call)
	}
}
