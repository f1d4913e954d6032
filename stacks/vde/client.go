// SPDX-License-Identifier: Apache-2.0

// The plug of a vde_switch, vde://.

package vde

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A client is a port of a switch. When the switch goes away it is a cable that was
// pulled out: what is written is lost, nothing is read, and the client asks again
// for the same port until the switch is back or the client is closed.
type client struct {
	place
	mtu    int
	log    *slog.Logger
	done   <-chan struct{} // closed by cancel
	cancel context.CancelFunc
	once   sync.Once
	wg     sync.WaitGroup // keep

	mu  sync.Mutex
	cur *attachment   // nil while there is no switch; +checklocks:mu
	new chan struct{} // closed when cur changes; +checklocks:mu

	in      batch // Read's
	batches sync.Pool
}

var _ stacks.TryWriter = (*client)(nil)

// checkClient looks at the options of vde://.
func checkClient(u *URL) error {
	if _, _, err := u.mode("mode"); err != nil {
		return err
	}
	word, _ := u.opt("", "port", "portgroup")
	if n, err := strconv.Atoi(word); err == nil && (n < 0 || n > maxPort) {
		return fmt.Errorf("port %d: ports are 1 to %d, or 0 for the switch's own", n, maxPort)
	}
	if strings.ContainsAny(word, "/\x00") || word == "." || word == ".." {
		return fmt.Errorf("the port group %q is no name", word)
	}
	return nil
}

func openClient(ctx context.Context, u *URL, o Options) (stacks.Link, error) {
	p := place{dir: u.Arg, group: -1, mode: 0o700, descr: o.Description}
	if !o.plain {
		p.descr = p.descr[:min(len(p.descr), maxDescr-len(offloadToken))] + offloadToken
	}
	p.word, _ = u.opt("", "port", "portgroup")
	if m, ok, err := u.mode("mode"); err != nil {
		return nil, err
	} else if ok {
		p.mode, p.set = m, true
	}
	if g, ok := u.opt("group"); ok {
		id, err := groupID(g)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u, err)
		}
		p.group = id
	}
	c := &client{place: p, mtu: o.MTU, log: o.Log, new: make(chan struct{})}
	c.batches.New = func() any { return new(batch) }
	a, err := c.plugIn(ctx)
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background()) // alive until Close
	c.cur, c.done, c.cancel = a, life.Done(), cancel
	c.wg.Go(func() { c.keep(life, a) })
	return c, nil
}

// plugIn attaches, and looks at what the switch is.
func (c *client) plugIn(ctx context.Context) (*attachment, error) {
	a, err := c.attach(ctx)
	if err == nil && c.mtu > DefaultMTU && a.isVdeSwitch() {
		a.close()
		err = fmt.Errorf("an MTU of %d: vde_switch carries frames of %d bytes and cuts longer ones; nodes of vdeplug carry %d, of umrun (switch://) what their mtu= says", c.mtu, DefaultMTU, MaxMTU)
	}
	if err != nil {
		return nil, &SwitchError{Dir: c.dir, Port: c.word, Err: err}
	}
	return a, nil
}

// isVdeSwitch tells whether the other end is vde_switch, by how it names its sockets:
// the port in three digits, a dot, a descriptor.
func (a *attachment) isVdeSwitch() bool {
	name := a.peer[strings.LastIndexByte(a.peer, '/')+1:]
	port, fd, ok := strings.Cut(name, ".")
	_, err1 := strconv.Atoi(port)
	_, err2 := strconv.Atoi(fd)
	return ok && len(port) >= 3 && err1 == nil && err2 == nil
}

// Times between attempts to get a port again.
const (
	againMin = 50 * time.Millisecond
	againMax = 2 * time.Second
)

// keep watches the switch and asks for the port again after it went away.
func (c *client) keep(ctx context.Context, a *attachment) {
	for {
		a.waitEnd()
		c.swap(nil)
		a.close()
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("the VDE switch is gone; frames are lost until it is back", "dir", c.dir)
		if a = c.again(ctx); a == nil {
			return
		}
		if !c.swap(a) {
			a.close()
			return
		}
		c.log.Info("the VDE switch is back", "dir", c.dir)
	}
}

// waitEnd waits until the switch hangs up, or until a is closed.
func (a *attachment) waitEnd() {
	var b [64]byte
	for {
		if _, err := a.ctl.Read(b[:]); err != nil {
			return
		}
	}
}

// again asks for the port until there is one; nil after Close.
func (c *client) again(ctx context.Context) *attachment {
	said := ""
	for wait := againMin; ; wait = min(2*wait, againMax) {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		a, err := c.plugIn(ctx)
		if err == nil {
			return a
		}
		if ctx.Err() != nil {
			return nil
		}
		// A switch that is not there needs no saying again; one that refuses does.
		if s := err.Error(); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) && s != said {
			c.log.Warn("no port", "err", s)
			said = s
		}
	}
}

// swap makes a the current attachment. It reports false after Close.
func (c *client) swap(a *attachment) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
		return false
	default:
	}
	c.cur = a
	close(c.new)
	c.new = make(chan struct{})
	return true
}

// now returns the current attachment, and a channel that is closed when there is
// another.
func (c *client) now() (*attachment, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cur, c.new
}

func (*client) Type() stacks.LinkType { return stacks.LinkEthernet }
func (c *client) MTU() int            { return c.mtu }
func (*client) BatchSize() int        { return batchSize }

// Read implements [stacks.Link].
func (c *client) Read(bufs [][]byte, sizes []int) (int, error) {
	n, _, err := c.read(func(*attachment) [][]byte { return bufs }, sizes)
	return n, err
}

// read receives into the buffers that are for an attachment, and tells whether what
// it received has offload headers.
func (c *client) read(bufs func(*attachment) [][]byte, sizes []int) (int, bool, error) {
	for {
		a, changed := c.now()
		if a != nil {
			n, err := a.data.readFrames(&c.in, bufs(a), sizes)
			if n > 0 {
				return n, a.offload, nil
			}
			if err != net.ErrClosed {
				// Nothing for us, or an error that is told once: whether it is the end
				// the control connection says.
				continue
			}
		}
		select {
		case <-c.done:
			return 0, false, net.ErrClosed
		case <-changed:
		}
	}
}

// readAny implements carrier.
func (c *client) readAny(small, big [][]byte, sizes []int) (int, bool, error) {
	return c.read(func(a *attachment) [][]byte {
		if a.offload {
			return big
		}
		return small
	}, sizes)
}

// writeWhole implements carrier.
func (c *client) writeWhole(bufs [][]byte, wait bool) (int, bool, error) {
	if a, _ := c.now(); a == nil || !a.offload {
		return 0, false, nil
	}
	n, err := c.write(bufs, wait, true)
	return n, true, err
}

// Write implements [stacks.Link]. It waits where the switch does not follow.
func (c *client) Write(bufs [][]byte) (int, error) { return c.write(bufs, true, false) }

// TryWrite implements [stacks.TryWriter].
func (c *client) TryWrite(bufs [][]byte) int {
	n, _ := c.write(bufs, false, false)
	return n
}

// write sends bufs, which have offload headers if whole is set. Those that were made
// for another switch than the one of now are lost.
func (c *client) write(bufs [][]byte, wait, whole bool) (int, error) {
	a, _ := c.now()
	if a == nil || a.offload != whole {
		select {
		case <-c.done:
			return 0, net.ErrClosed
		default:
			return len(bufs), nil // into a cable without an end
		}
	}
	b := c.batches.Get().(*batch)
	defer c.batches.Put(b)
	n, err := a.data.writeFrames(b, bufs, wait)
	if err != nil && err != unix.EAGAIN {
		select {
		case <-c.done:
			return n, net.ErrClosed
		default:
			return len(bufs), nil // keep sees the end
		}
	}
	return n, nil
}

// Close implements [stacks.Link]. The switch frees the port.
func (c *client) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		c.cancel()
		if c.cur != nil {
			c.cur.close()
			c.cur = nil
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	return nil
}
