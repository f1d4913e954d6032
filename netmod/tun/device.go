// SPDX-License-Identifier: Apache-2.0

// A device: what TUNSETIFF makes, and how it is set up.

package tun

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/offload"
)

const (
	defaultMTU = 1500  // ETH_DATA_LEN
	maxMTU     = 65535 // drivers/net/tun.c, MAX_MTU
)

// Flags of a device, which linux/if_tun.h and x/sys do not name all.
const (
	iffPersist  = 0x0800
	iffNoFilter = 0x1000 // TUNGETIFF tells that there is none by the number of IFF_NO_PI
	iffTunExcl  = 0x8000

	// What TUNGETFEATURES tells.
	features = unix.IFF_TUN | unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_ONE_QUEUE | unix.IFF_VNET_HDR
)

// A device is an interface whose packets a program reads and writes. It is the link of
// the stack that has the interface.
type device struct {
	m     *Module
	typ   stacks.LinkType
	index int  // of the interface; set once, with Module.mu held
	gone  bool // nobody has it open any more; guarded by Module.mu

	mu       sync.Mutex
	attached sync.Cond // waited for by Read, while there is no file
	file     *file     // nil: a persistent device without one; +checklocks:mu
	flags    uint16    // IFF_*, of the last TUNSETIFF; +checklocks:mu
	persist  bool      // +checklocks:mu
	hdrLen   int       // bytes of the virtio_net_hdr; +checklocks:mu
	offloads uint32    // TUN_F_*; +checklocks:mu
	closed   bool      // +checklocks:mu

	writing sync.Mutex
	out     cutter // +checklocks:writing
	in      []byte // of Read
}

func newDevice(m *Module, typ stacks.LinkType) *device {
	d := &device{m: m, typ: typ, hdrLen: offload.HdrLen}
	d.attached.L = &d.mu
	return d
}

// validName is dev_valid_name of net/core/dev.c.
func validName(name string) bool {
	return name != "" && len(name) < unix.IFNAMSIZ && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r")
}

// freeName is dev_alloc_name: of a pattern with %d the first name that is free.
func freeName(pattern string, st stacks.State) (string, unix.Errno) {
	before, after, ok := strings.Cut(pattern, "%")
	if !ok {
		return pattern, 0
	}
	after, ok = strings.CutPrefix(after, "d")
	if !ok || strings.Contains(after, "%") {
		return "", unix.EINVAL
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s%d%s", before, i, after)
		if len(name) >= unix.IFNAMSIZ {
			return "", unix.ENFILE
		}
		if _, used := named(st, name); !used {
			return name, 0
		}
	}
}

// named finds an interface.
func named(st stacks.State, name string) (index int, ok bool) {
	i := slices.IndexFunc(st.Interfaces, func(i stacks.Interface) bool { return i.Name == name })
	if i < 0 {
		return 0, false
	}
	return st.Interfaces[i].Index, true
}

// setIff is tun_set_iff: it gives f the device that it asks for, which may be there. It
// returns the device's name.
func (m *Module) setIff(f *file, name string, flags uint16) (string, unix.Errno) {
	m.making.Lock()
	defer m.making.Unlock()
	if f.dev != nil {
		return "", unix.EEXIST
	}
	st := m.net.State()
	if index, ok := named(st, name); ok {
		m.mu.Lock()
		d := m.devices[index]
		m.mu.Unlock()
		if d == nil {
			return "", unix.EINVAL // it is something else
		}
		return name, d.reattach(f, flags)
	}
	typ, pattern := stacks.LinkIP, "tun%d"
	switch {
	case flags&unix.IFF_MULTI_QUEUE != 0:
		return "", unix.EINVAL
	case flags&unix.IFF_TUN != 0:
	case flags&unix.IFF_TAP != 0:
		typ, pattern = stacks.LinkEthernet, "tap%d"
	default:
		return "", unix.EINVAL
	}
	if name != "" {
		pattern = name
	}
	if !validName(pattern) {
		return "", unix.EINVAL
	}
	name, errno := freeName(pattern, st)
	if errno != 0 {
		return "", errno
	}
	if !f.take() {
		return "", unix.EBADFD
	}
	d := newDevice(m, typ)
	d.file, d.flags = f, flags
	index, err := m.net.Attach(stacks.LinkConfig{Name: name, Link: d, MTU: defaultMTU})
	if err != nil {
		m.log.Warn("make a TUN device", "link", name, "err", err)
		f.dev = d // it reads nothing any more, and cannot be tried again
		return "", unix.EBUSY
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d.index = index
	if m.closed || d.gone { // meanwhile
		m.wg.Go(func() { m.detach(d) })
		return "", unix.ENODEV
	}
	m.devices[index] = d
	f.dev = d
	return name, 0
}

// reattach gives a persistent device a file. Module.making is held.
func (d *device) reattach(f *file, flags uint16) unix.Errno {
	want := uint16(unix.IFF_TUN)
	if d.typ == stacks.LinkEthernet {
		want = unix.IFF_TAP
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case flags&unix.IFF_MULTI_QUEUE != 0, flags&want == 0:
		return unix.EINVAL
	case d.file != nil, flags&iffTunExcl != 0:
		return unix.EBUSY
	case !f.take():
		return unix.EBADFD
	}
	d.file, d.flags, f.dev = f, flags, d
	d.attached.Broadcast()
	return 0
}

// told is what TUNGETIFF tells of the flags.
//
// +checklocks:d.mu
func (d *device) told() uint16 {
	flags := d.flags&(unix.IFF_NO_PI|unix.IFF_ONE_QUEUE|unix.IFF_VNET_HDR) | iffNoFilter
	if d.typ == stacks.LinkEthernet {
		flags |= unix.IFF_TAP
	} else {
		flags |= unix.IFF_TUN
	}
	if d.persist {
		flags |= iffPersist
	}
	return flags
}
