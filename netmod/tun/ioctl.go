// SPDX-License-Identifier: Apache-2.0

// The ioctls of a TUN: drivers/net/tun.c:__tun_chr_ioctl.

package tun

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
	"umrun/stacks/offload"
)

var native = binary.NativeEndian

// Layout of struct ifreq, netdevice(7).
const (
	ifreqLen   = 40
	ifreqFlags = unix.IFNAMSIZ // ifr_flags
	ifreqAddr  = unix.IFNAMSIZ // ifr_hwaddr, a struct sockaddr
)

// takes are the offloads that a program may ask for.
const takes = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN

// handleIoctl answers those about files of the module.
func (m *Module) handleIoctl(c *intercept.Call) intercept.Action {
	fd, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil {
		return intercept.Next() // the kernel has the errno, or others
	}
	defer fd.CloseShort()
	f := m.find(fd)
	if f == nil {
		return intercept.Next()
	}
	if errno := m.ioctl(c, f, uint32(c.Args[1]), intercept.Addr(c.Args[2])); errno != 0 {
		return intercept.Fail(errno)
	}
	return intercept.Return(0)
}

func (m *Module) ioctl(c *intercept.Call, f *file, cmd uint32, arg intercept.Addr) unix.Errno {
	switch cmd {
	case unix.TUNSETIFF:
		return m.ioctlSetIff(c, f, arg)
	case unix.TUNGETFEATURES:
		return putInt(c, arg, features)
	case unix.TUNSETQUEUE:
		return unix.EINVAL // there is one
	}
	m.making.Lock()
	d := f.dev
	m.making.Unlock()
	if d == nil {
		return unix.EBADFD
	}
	switch cmd {
	case unix.TUNGETIFF:
		return m.ioctlGetIff(c, d, arg)
	case unix.SIOCGIFHWADDR:
		return m.ioctlHWAddr(c, d, arg)
	case unix.TUNSETLINK:
		if ifc, ok := m.ifc(d); ok && ifc.Up {
			return unix.EBUSY
		} else if int(c.Args[2]) != hardware(d.typ) {
			return unix.EINVAL // it is what it is
		}
		return 0
	case unix.TUNSETNOCSUM, unix.TUNSETDEBUG, unix.TUNSETOWNER, unix.TUNSETGROUP:
		return 0 // nobody asks for them, nor for others' devices
	case unix.TUNGETSNDBUF:
		return putInt(c, arg, math.MaxInt32)
	case unix.TUNSETIFINDEX:
		return unix.EPERM // it has one
	case unix.TUNSETSNDBUF, unix.TUNSETCARRIER:
		v, errno := getInt(c, arg)
		if errno == 0 && v <= 0 && cmd == unix.TUNSETSNDBUF {
			return unix.EINVAL
		}
		return errno // the carrier is not told
	case unix.TUNSETVNETHDRSZ, unix.TUNSETVNETLE, unix.TUNSETVNETBE:
		v, errno := getInt(c, arg)
		if errno != 0 {
			return errno
		}
		return d.set(cmd, v)
	case unix.TUNSETPERSIST, unix.TUNSETOFFLOAD:
		return d.set(cmd, int32(c.Args[2]))
	case unix.TUNGETVNETHDRSZ, unix.TUNGETVNETLE:
		return putInt(c, arg, d.get(cmd))
	}
	return unix.EINVAL
}

// ioctlSetIff is TUNSETIFF.
func (m *Module) ioctlSetIff(c *intercept.Call, f *file, arg intercept.Addr) unix.Errno {
	var b [ifreqLen]byte
	if err := c.ReadMem(arg, b[:]); err != nil {
		return intercept.Errno(err)
	}
	b[unix.IFNAMSIZ-1] = 0
	name, errno := m.setIff(f, cString(b[:unix.IFNAMSIZ]), native.Uint16(b[ifreqFlags:]))
	if errno != 0 {
		return errno
	}
	clear(b[:unix.IFNAMSIZ])
	copy(b[:], name)
	if err := c.WriteMem(arg, b[:]); err != nil {
		return intercept.Errno(err)
	}
	return 0
}

// ioctlGetIff is TUNGETIFF.
func (m *Module) ioctlGetIff(c *intercept.Call, d *device, arg intercept.Addr) unix.Errno {
	ifc, ok := m.ifc(d)
	if !ok {
		return unix.EBADFD // removed by somebody
	}
	var b [ifreqLen]byte
	if err := c.ReadMem(arg, b[:]); err != nil {
		return intercept.Errno(err)
	}
	clear(b[:unix.IFNAMSIZ])
	copy(b[:], ifc.Name)
	d.mu.Lock()
	native.PutUint16(b[ifreqFlags:], d.told())
	d.mu.Unlock()
	if err := c.WriteMem(arg, b[:]); err != nil {
		return intercept.Errno(err)
	}
	return 0
}

// ioctlHWAddr is SIOCGIFHWADDR, which asks a TUN for its own address.
func (m *Module) ioctlHWAddr(c *intercept.Call, d *device, arg intercept.Addr) unix.Errno {
	ifc, ok := m.ifc(d)
	if !ok {
		return unix.EBADFD
	}
	var b [ifreqLen]byte
	if err := c.ReadMem(arg, b[:]); err != nil {
		return intercept.Errno(err)
	}
	clear(b[ifreqAddr : ifreqAddr+unix.SizeofSockaddrInet4])
	native.PutUint16(b[ifreqAddr:], uint16(hardware(d.typ)))
	copy(b[ifreqAddr+2:], ifc.MAC)
	if err := c.WriteMem(arg, b[:]); err != nil {
		return intercept.Errno(err)
	}
	return 0
}

// hardware is the ARPHRD_* of a device.
func hardware(t stacks.LinkType) int {
	if t == stacks.LinkEthernet {
		return unix.ARPHRD_ETHER
	}
	return unix.ARPHRD_NONE
}

// ifc is the interface of a device.
func (m *Module) ifc(d *device) (stacks.Interface, bool) {
	st := m.net.State()
	i := slices.IndexFunc(st.Interfaces, func(i stacks.Interface) bool { return i.Index == d.index })
	if i < 0 {
		return stacks.Interface{}, false
	}
	return st.Interfaces[i], true
}

// set is an ioctl with a number.
func (d *device) set(cmd uint32, v int32) unix.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch cmd {
	case unix.TUNSETPERSIST:
		d.persist = v != 0
	case unix.TUNSETOFFLOAD:
		if v&^takes != 0 {
			return unix.EINVAL
		}
		d.offloads = uint32(v)
	case unix.TUNSETVNETHDRSZ:
		if v < offload.HdrLen || v > maxHdr {
			return unix.EINVAL
		}
		d.hdrLen = int(v)
	case unix.TUNSETVNETLE: // every machine that umrun runs on has that order
	case unix.TUNSETVNETBE:
		return unix.EINVAL
	}
	return 0
}

// get is one that asks for a number.
func (d *device) get(cmd uint32) uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if cmd == unix.TUNGETVNETHDRSZ {
		return uint32(d.hdrLen)
	}
	return 1 // TUNGETVNETLE
}

func putInt(c *intercept.Call, at intercept.Addr, v uint32) unix.Errno {
	if err := c.WriteMem(at, native.AppendUint32(nil, v)); err != nil {
		return intercept.Errno(err)
	}
	return 0
}

func getInt(c *intercept.Call, at intercept.Addr) (int32, unix.Errno) {
	var b [4]byte
	if err := c.ReadMem(at, b[:]); err != nil {
		return 0, intercept.Errno(err)
	}
	return int32(native.Uint32(b[:])), 0
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
