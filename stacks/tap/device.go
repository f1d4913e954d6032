// SPDX-License-Identifier: Apache-2.0

// Opening a device, and why that is refused.

package tap

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// clone is where devices are opened.
const clone = "/dev/net/tun"

// Options say which device.
type Options struct {
	Name string          // of the device, at most 15 bytes
	Type stacks.LinkType // LinkEthernet is a TAP, LinkIP a TUN
	MTU  int             // bytes, of a device that is made; 0: the kernel's 1500
}

// A Refusal says why a device could not be opened, for people.
type Refusal struct {
	What string   // what was refused: a line, lower case, no full stop
	Why  string   // sentences; may be empty
	Try  []string // commands that help; may be empty
	Err  error    // the errno
}

// Error returns What.
func (r *Refusal) Error() string { return r.What }

// Unwrap returns the errno.
func (r *Refusal) Unwrap() error { return r.Err }

// Open attaches to a device of the caller's network namespace, or makes one, which is
// then up. The error is a *[Refusal].
func Open(o Options) (*Link, error) {
	fd, made, err := attach(o)
	if err != nil {
		return nil, err
	}
	l, err := New(fd, 0)
	switch {
	case err == nil && made:
		err = raise(l.name, o.MTU)
	case err == nil:
		settle(l.name)
	}
	if err == nil {
		l.mtu, l.up, err = look(l.name)
	}
	if err != nil {
		if l != nil {
			l.Close()
		}
		return nil, &Refusal{What: fmt.Sprintf("%s: %v", o.Name, err), Err: err}
	}
	return l, nil
}

// New makes a link of a device that is attached to fd, a non-blocking file of
// /dev/net/tun after TUNSETIFF with IFF_NO_PI and IFF_VNET_HDR. The device may be in
// any network namespace; mtu, in bytes, is its MTU. The link owns fd, and closes it on
// an error.
func New(fd, mtu int) (*Link, error) {
	l, err := newLink(fd, mtu)
	if err != nil {
		unix.Close(fd)
	}
	return l, err
}

// attach opens the device; made says that it was not there before.
func attach(o Options) (fd int, made bool, err error) {
	flag, kind := uint16(unix.IFF_TUN), "tun"
	if o.Type == stacks.LinkEthernet {
		flag, kind = unix.IFF_TAP, "tap"
	}
	ifr, err := unix.NewIfreq(o.Name)
	if err != nil || o.Name == "" || strings.ContainsAny(o.Name, "/%: \t\n") || o.Name == "." || o.Name == ".." { // dev_valid_name
		return -1, false, &Refusal{What: fmt.Sprintf("%q is no name of a device", o.Name), Err: unix.EINVAL,
			Why: "It has 1 to 15 bytes, without white space, '/', ':' and '%'."}
	}
	if fd, err = unix.Open(clone, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return -1, false, noClone(err)
	}
	made = kindOf(o.Name) == ""
	flags := flag | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	ifr.SetUint16(flags)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	if err == unix.EINVAL && !made { // one that was made with several queues wants to hear so
		ifr.SetUint16(flags | unix.IFF_MULTI_QUEUE)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return -1, false, refusal(o.Name, kind, kindOf(o.Name), err)
	}
	return fd, made, nil
}

// noClone says why /dev/net/tun cannot be opened.
func noClone(err error) *Refusal {
	r := &Refusal{What: fmt.Sprintf("open %s: %v", clone, err), Err: err}
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		r.Why = "Only root may open it here; elsewhere everybody may, who then needs a device of his own."
		r.Try = []string{"sudo chmod 0666 " + clone}
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		r.Why = "The kernel's module tun is not there."
		r.Try = []string{"sudo modprobe tun"}
	}
	return r
}

// refusal says why TUNSETIFF has failed; is is the kind of the device of that name, see
// kindOf.
func refusal(name, kind, is string, err error) *Refusal {
	r := &Refusal{What: fmt.Sprintf("%s:%s: %v", kind, name, err), Err: err}
	ask := fmt.Sprintf("sudo ip tuntap add dev %s mode %s user $USER && sudo ip link set %s up", name, kind, name)
	switch {
	case errors.Is(err, unix.EPERM) && is == "":
		r.What = fmt.Sprintf("there is no device %s, and only root may make one", name)
		r.Try = []string{ask}
	case errors.Is(err, unix.EPERM):
		r.What = fmt.Sprintf("the device %s belongs to somebody else", name)
		r.Try = []string{fmt.Sprintf("sudo ip tuntap del dev %s mode %s && %s", name, kind, ask)}
	case errors.Is(err, unix.EBUSY):
		r.What = fmt.Sprintf("the device %s is in use", name)
		r.Why = "Another program has it open: a virtual machine, a VPN client, or another umrun."
	case errors.Is(err, unix.EINVAL) && (is == "tap" || is == "tun") && is != kind:
		r.What = fmt.Sprintf("%s is a %s device, no %s", name, strings.ToUpper(is), strings.ToUpper(kind))
		r.Try = []string{fmt.Sprintf("-n %s:%s", is, name)}
	case errors.Is(err, unix.EINVAL) && is != "":
		r.What = fmt.Sprintf("%s is no %s device", name, strings.ToUpper(kind))
		r.Why = "It is a network card, a bridge or the like: put a device of its own beside it."
		r.Try = []string{fmt.Sprintf("sudo ip tuntap add dev tap0 mode tap user $USER && sudo ip link set tap0 master %s up", name)}
	}
	return r
}

// kindOf asks what the device of a name is: "tap", "tun", "other", or "" if there is
// none. It is told of the caller's network namespace.
func kindOf(name string) string {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err != nil || unix.IoctlIfreq(s, unix.SIOCGIFINDEX, ifr) != nil {
		return ""
	}
	info, err := unix.IoctlGetEthtoolDrvinfo(s, name)
	if err != nil || unix.ByteSliceToString(info.Driver[:]) != "tun" {
		return "other"
	}
	return unix.ByteSliceToString(info.Bus_info[:])
}

// raise sets up a device that was made here: nobody else knows of it.
func raise(name string, mtu int) error {
	return withSocket(func(s int) error {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if mtu != 0 {
			ifr.SetUint32(uint32(mtu))
			if err := unix.IoctlIfreq(s, unix.SIOCSIFMTU, ifr); err != nil {
				return fmt.Errorf("set MTU %d: %w", mtu, err)
			}
		}
		if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
			return fmt.Errorf("look at flags: %w", err)
		}
		ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
		if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
		return nil
	})
}

// settle has the kernel begin at once to send by a device that is up and has its carrier since it
// was attached to. It would drop packets until a worker has seen to that
// (net/core/link_watch.c), which a question for the carrier waits for, since Linux 6.8
// (net/ethtool/ioctl.c:ethtool_op_get_link). Elsewhere the answer is as good as none.
func settle(name string) {
	_ = withSocket(func(s int) error {
		value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_GLINK}
		req := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte // of a struct ifreq
		}{data: unsafe.Pointer(&value)}
		copy(req.name[:unix.IFNAMSIZ-1], name)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
			return errno
		}
		return nil
	})
}

// look asks for the MTU of a device, bytes, and whether it is up.
func look(name string) (mtu int, up bool, err error) {
	err = withSocket(func(s int) error {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
			return fmt.Errorf("look at flags: %w", err)
		}
		up = ifr.Uint16()&unix.IFF_UP != 0
		if err := unix.IoctlIfreq(s, unix.SIOCGIFMTU, ifr); err != nil {
			return fmt.Errorf("look at MTU: %w", err)
		}
		mtu = int(ifr.Uint32())
		return nil
	})
	return mtu, up, err
}

func withSocket(f func(s int) error) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(s)
	return f(s)
}

// tuned sets what the file shall do with packets: headers of 10 bytes, little endian,
// and offloads, those of UDP where the kernel has them (6.2).
func tuned(fd int) error {
	for _, o := range []struct {
		name string
		req  uint
		v    int
	}{{"TUNSETVNETHDRSZ", unix.TUNSETVNETHDRSZ, offload.HdrLen}, {"TUNSETVNETLE", unix.TUNSETVNETLE, 1}} {
		if err := unix.IoctlSetPointerInt(fd, o.req, o.v); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	const tso = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		return nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso); err != nil {
		return fmt.Errorf("TUNSETOFFLOAD: %w", err)
	}
	return nil
}
