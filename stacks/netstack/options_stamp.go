// SPDX-License-Identifier: Apache-2.0

// The options that ask for time stamps, socket(7) and Documentation/networking/
// timestamping.rst. netmod acts on them; here is what they exclude and what they
// read as (net/core/sock.c:sock_set_timestamp, sock_set_timestamping).

package netstack

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// What is kept under SO_TIMESTAMP: the flags that Linux has in struct sock.
const (
	stampOn  = 1 << iota // SOCK_RCVTSTAMP
	stampNS              // SOCK_RCVTSTAMPNS
	stampNew             // SOCK_TSTAMP_NEW
)

// stampsOnSend are the flags that ask about what is sent, but for TX_HARDWARE: no
// interface has a clock.
const stampsOnSend = unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_TX_SCHED | unix.SOF_TIMESTAMPING_TX_ACK | 1<<18 // TX_COMPLETION

// stampingMask is every flag of SO_TIMESTAMPING, as of Linux 6.18.
const stampingMask = 1<<19 - 1

var (
	stampKey    = optKey{sock0, unix.SO_TIMESTAMP}
	stampingKey = optKey{sock0, unix.SO_TIMESTAMPING}
)

// stamp is an option that sets the given flags, and reads as 1 if the flags in mask
// are those in want.
func stamp(name string, flags, mask, want int) option {
	return option{
		name: name,
		set: func(s *sock, _ tcpip.Endpoint, v []byte) error {
			n, err := intOf(v)
			if err != nil {
				return err
			}
			if n != 0 {
				s.setVal(stampKey, stampOn|flags)
			} else {
				s.setVal(stampKey, s.val(stampKey, 0)&stampNew)
			}
			return nil
		},
		get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
			return boolBytes(s.val(stampKey, 0)&mask == want), nil
		},
	}
}

func stamping(name string, fresh bool) option {
	return option{
		name: name,
		set: func(s *sock, _ tcpip.Endpoint, v []byte) error {
			n, err := intOf(v)
			switch {
			case err != nil:
				return err
			case s.typ == unix.SOCK_STREAM && n&stampsOnSend != 0:
				return unix.ENOPROTOOPT // what becomes of segments is not told
			case s.typ == unix.SOCK_STREAM && n&unix.SOF_TIMESTAMPING_OPT_ID&^s.val(stampingKey, 0) != 0 && !s.remoteName().IsValid(),
				n&^stampingMask != 0,
				n&unix.SOF_TIMESTAMPING_OPT_ID_TCP != 0 && n&unix.SOF_TIMESTAMPING_OPT_ID == 0,
				n&unix.SOF_TIMESTAMPING_OPT_STATS != 0 && n&unix.SOF_TIMESTAMPING_OPT_TSONLY == 0:
				return unix.EINVAL
			case n&unix.SOF_TIMESTAMPING_BIND_PHC != 0:
				return unix.EOPNOTSUPP // no interface has a clock
			}
			s.setVal(stampingKey, n)
			flags := s.val(stampKey, 0) &^ stampNew
			if fresh {
				flags |= stampNew
			}
			s.setVal(stampKey, flags)
			return nil
		},
		get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
			v := make([]byte, 8) // struct so_timestamping
			if !fresh || s.val(stampKey, 0)&stampNew != 0 {
				binary.NativeEndian.PutUint32(v, uint32(s.val(stampingKey, 0)))
			}
			return v, nil
		},
	}
}
