// SPDX-License-Identifier: Apache-2.0

// The directory /sys/class/net.

package procnet

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// ARPHRD_* of linux/if_arp.h.
const (
	arphrdEther    = 1
	arphrdLoopback = 772
	arphrdNone     = 0xfffe
)

// attributes are the files of an interface, net/core/net-sysfs.c.
var attributes = map[string]func(i *stacks.Interface) string{
	"addr_assign_type":  constant("0"),
	"addr_len":          func(i *stacks.Interface) string { return fmt.Sprint(addrLen(i)) },
	"address":           func(i *stacks.Interface) string { return hardware(i, 0) },
	"broadcast":         func(i *stacks.Interface) string { return hardware(i, 0xff) },
	"carrier":           func(i *stacks.Interface) string { return fmt.Sprint(bit(i.Up)) },
	"dev_id":            constant("0x0"),
	"dev_port":          constant("0"),
	"dormant":           constant("0"),
	"flags":             func(i *stacks.Interface) string { return fmt.Sprintf("0x%x", deviceFlags(i)) },
	"gro_flush_timeout": constant("0"),
	"ifalias":           constant(""),
	"ifindex":           func(i *stacks.Interface) string { return fmt.Sprint(i.Index) },
	"iflink":            func(i *stacks.Interface) string { return fmt.Sprint(i.Index) },
	"link_mode":         constant("0"),
	"mtu":               func(i *stacks.Interface) string { return fmt.Sprint(i.MTU) },
	"netdev_group":      constant("0"),
	"operstate":         func(i *stacks.Interface) string { return operstate(i) },
	"proto_down":        constant("0"),
	"tx_queue_len":      func(i *stacks.Interface) string { return fmt.Sprint(queueLen(i)) },
	"type":              func(i *stacks.Interface) string { return fmt.Sprint(hardwareType(i)) },
	"uevent": func(i *stacks.Interface) string {
		return fmt.Sprintf("INTERFACE=%s\nIFINDEX=%d", i.Name, i.Index)
	},
}

// statistics are the files of an interface's directory of that name.
var statistics = map[string]func(stacks.Counters) uint64{
	"collisions": none, "multicast": none,
	"rx_bytes": func(c stacks.Counters) uint64 { return c.RxBytes }, "tx_bytes": func(c stacks.Counters) uint64 { return c.TxBytes },
	"rx_packets": func(c stacks.Counters) uint64 { return c.RxPackets }, "tx_packets": func(c stacks.Counters) uint64 { return c.TxPackets },
	"rx_dropped": func(c stacks.Counters) uint64 { return c.RxDropped }, "tx_dropped": func(c stacks.Counters) uint64 { return c.TxDropped },
	"rx_errors": none, "tx_errors": none, "rx_compressed": none, "tx_compressed": none, "rx_crc_errors": none, "rx_fifo_errors": none,
	"rx_frame_errors": none, "rx_length_errors": none, "rx_missed_errors": none, "rx_nohandler": none, "rx_over_errors": none,
	"tx_aborted_errors": none, "tx_carrier_errors": none, "tx_fifo_errors": none, "tx_heartbeat_errors": none, "tx_window_errors": none,
}

// none is a counter of what cannot happen to an interface without a device.
func none(stacks.Counters) uint64 { return 0 }

func constant(v string) func(*stacks.Interface) string {
	return func(*stacks.Interface) string { return v }
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func addrLen(i *stacks.Interface) int {
	if i.Type == stacks.LinkEthernet || i.Loop {
		return 6
	}
	return 0
}

// hardware writes the address of an interface: bytes of fill, if it is the
// broadcast address.
func hardware(i *stacks.Interface, fill byte) string {
	if addrLen(i) == 0 {
		return ""
	}
	var parts []string
	for n := range 6 {
		b := fill
		if fill == 0 && n < len(i.MAC) || i.Loop {
			b = 0
			if n < len(i.MAC) {
				b = i.MAC[n]
			}
		}
		parts = append(parts, fmt.Sprintf("%02x", b))
	}
	return strings.Join(parts, ":")
}

func hardwareType(i *stacks.Interface) int {
	switch {
	case i.Loop:
		return arphrdLoopback
	case i.Type == stacks.LinkEthernet:
		return arphrdEther
	}
	return arphrdNone
}

// deviceFlags are the IFF_* that a device has of itself, without what they say of its
// state (net/core/net-sysfs.c shows dev->flags).
func deviceFlags(i *stacks.Interface) uint32 {
	flags := uint32(unix.IFF_POINTOPOINT | unix.IFF_MULTICAST | unix.IFF_NOARP)
	switch {
	case i.Loop:
		flags = unix.IFF_LOOPBACK
	case i.Type == stacks.LinkEthernet:
		flags = unix.IFF_BROADCAST | unix.IFF_MULTICAST
	}
	if i.Up {
		flags |= unix.IFF_UP
	}
	return flags ^ i.Flipped
}

// operstate is Documentation/ABI/testing/sysfs-class-net: of what has no carrier to
// lose it is unknown.
func operstate(i *stacks.Interface) string {
	switch {
	case !i.Up && !i.Loop:
		return "down"
	case i.Type == stacks.LinkEthernet:
		return "up"
	}
	return "unknown"
}

func queueLen(i *stacks.Interface) int {
	if i.TxQueue != 0 {
		return max(0, i.TxQueue)
	}
	if i.Type == stacks.LinkEthernet || i.Loop {
		return 1000
	}
	return 500
}

// Sys returns what is at a path below /sys/class/net: the content of a file, or the
// names in a directory. Errors: ENOENT, ENOTDIR.
func Sys(path string, from *Source) (content []byte, names []string, err error) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if parts[0] == "" {
		for _, i := range from.State.Interfaces {
			names = append(names, i.Name)
		}
		return nil, names, nil
	}
	at := slices.IndexFunc(from.State.Interfaces, func(i stacks.Interface) bool { return i.Name == parts[0] })
	if at < 0 {
		return nil, nil, unix.ENOENT
	}
	i := &from.State.Interfaces[at]
	var c stacks.Counters
	if from.Counters != nil {
		c = from.Counters(i.Index)
	}
	switch {
	case len(parts) == 1:
		return nil, append(slices.Sorted(maps.Keys(attributes)), "statistics"), nil
	case parts[1] == "statistics" && len(parts) == 2:
		return nil, slices.Sorted(maps.Keys(statistics)), nil
	case parts[1] == "statistics" && len(parts) == 3:
		if f, ok := statistics[parts[2]]; ok {
			return fmt.Appendf(nil, "%d\n", f(c)), nil, nil
		}
		return nil, nil, unix.ENOENT
	case parts[1] == "statistics":
		return nil, nil, unix.ENOTDIR
	}
	f, ok := attributes[parts[1]]
	switch {
	case !ok:
		return nil, nil, unix.ENOENT
	case len(parts) > 2:
		return nil, nil, unix.ENOTDIR
	}
	text := f(i)
	if text == "" && parts[1] == "ifalias" {
		return nil, nil, nil
	}
	return []byte(text + "\n"), nil, nil
}

// KnownSys tells whether a name is one of a file or directory below an interface's.
func KnownSys(name string) bool {
	return attributes[name] != nil || statistics[name] != nil || name == "statistics" || deviceFiles[name]
}

// deviceFiles are files that interfaces with a device behind them have.
var deviceFiles = known(`bonding bonding_slave bridge brport carrier_changes carrier_down_count carrier_up_count device duplex
	name_assign_type napi_defer_hard_irqs phydev phys_port_id phys_port_name phys_switch_id power queues speed subsystem testing
	threaded tun_flags upper_lower wireless`)
