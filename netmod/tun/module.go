// SPDX-License-Identifier: Apache-2.0

// The module: which files and devices there are.

package tun

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// A Network is where devices become interfaces.
type Network interface {
	stacks.Attacher

	// State tells the interfaces, by the names and numbers that programs know.
	State() stacks.State
}

// A Module serves the device to one target.
type Module struct {
	net Network
	log *slog.Logger
	wg  sync.WaitGroup

	making sync.Mutex // one TUNSETIFF at a time; before all else

	mu      sync.Mutex
	files   map[uint64]*file // by the cookie of the program's end; +checklocks:mu
	devices map[int]*device  // by interface; +checklocks:mu
	closed  bool             // +checklocks:mu
}

// New makes a module. Close ends it.
func New(n Network, log *slog.Logger) *Module {
	return &Module{net: n, log: log, files: make(map[uint64]*file), devices: make(map[int]*device)}
}

// Rules declares the ioctls of a TUN: those of the type 'T' from 0xc8 on, of which
// terminals have none, and the two of sockets that it knows. They go before those of
// package netmod.
func (m *Module) Rules() intercept.Rules {
	on := func(arg intercept.Arg) intercept.Rule {
		return intercept.Rule{NR: unix.SYS_IOCTL, Args: []intercept.Arg{arg}, Do: intercept.Notify, Handler: intercept.HandlerFunc(m.handleIoctl)}
	}
	return intercept.Rules{
		on(intercept.ArgMasked(1, 0xffc0, 0x54c0)),
		on(intercept.ArgEqual32(1, unix.SIOCGIFHWADDR)),
	}
}

// Open makes the descriptor that open(2) of /dev/net/tun gives. It is close-on-exec.
func (m *Module) Open(flags int) (fd int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := pair[0], pair[1]
	f, err := newFile(ours, theirs)
	if err != nil {
		unix.Close(theirs)
		return -1, err
	}
	if flags&unix.O_NONBLOCK != 0 {
		if err := unix.SetNonblock(theirs, true); err != nil {
			f.close()
			unix.Close(theirs)
			return -1, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		f.close()
		unix.Close(theirs)
		return -1, unix.ENODEV
	}
	m.files[f.cookie] = f
	m.wg.Go(func() {
		if f.idle() {
			m.forget(f)
		}
	})
	return theirs, nil
}

// forget closes a file whose last descriptor is closed.
func (m *Module) forget(f *file) {
	m.mu.Lock()
	delete(m.files, f.cookie)
	m.mu.Unlock()
	f.close()
}

// find returns the file that a descriptor of the program refers to, or nil.
func (m *Module) find(fd intercept.FD) *file {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[fd.Key.Cookie]
}

// lost is called by a device whose file was closed by the program.
func (m *Module) lost(d *device, f *file) {
	m.forget(f)
	d.mu.Lock()
	if d.file == f {
		d.file = nil
	}
	gone := d.file == nil && !d.persist
	d.mu.Unlock()
	if gone {
		m.remove(d)
	}
}

// remove takes a device out of the network, in its own time: the caller may be the
// network's reader.
func (m *Module) remove(d *device) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d.gone = true
	if m.closed || m.devices[d.index] != d {
		return // removed already, or by Close, or setIff sees to it
	}
	delete(m.devices, d.index)
	m.wg.Go(func() { m.detach(d) })
}

func (m *Module) detach(d *device) {
	if err := m.net.Detach(d.index); err != nil && !errors.Is(err, unix.ENODEV) {
		m.log.Error("remove a TUN device", "err", err)
	}
	d.Close() // it may have been refused
}

// Close removes the devices and closes the files; the program then reads an end of
// file. Twice is fine.
func (m *Module) Close() error {
	m.mu.Lock()
	m.closed = true
	devices, files := m.devices, m.files
	m.devices, m.files = nil, nil
	m.mu.Unlock()
	for _, d := range devices {
		m.detach(d)
	}
	for _, f := range files {
		f.close()
	}
	m.wg.Wait()
	return nil
}
