// SPDX-License-Identifier: Apache-2.0

// Time stamps of what a stream receives: SO_TIMESTAMP and its kin, SO_TIMESTAMPING.
//
// recvmsg(2) tells when the last byte came that it returns (net/ipv4/tcp.c:
// tcp_recv_timestamp). Bytes lie in the placeholder, from which calls that do not trap
// take them as well: which ones a call has got follows from how many are left.

package netmod

import (
	"sort"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// arrivalsMax bounds what is kept. Where there is more, two become one with the later
// time.
const arrivalsMax = 4096

// arrivals are the times at which the bytes came that a program may still read. The
// socket's mutex guards them.
type arrivals struct {
	asked atomic.Bool // want has some of wantStamps
	want  ancillary
	total int64 // bytes that were given to the program, since it asks
	list  []arrival
}

// An arrival is when the bytes before end came that no earlier one has, ns since the
// epoch; 0 unknown.
type arrival struct{ end, at int64 }

// noteStamps acts on an option that the stack has accepted. d is a duplicate of the
// placeholder.
func (s *stream) noteStamps(d, level, name int, v []byte) {
	var flags uint32
	if !noteStampOption(&s.came.want, &flags, level, name, v) {
		return
	}
	on := s.came.want&(wantTimestamp|wantTimestamping) != 0
	if on && !s.came.asked.Load() {
		s.endBypass(nil) // whose bytes nobody sees
		s.came.total, s.came.list = 0, nil
		if n, err := unix.IoctlGetInt(d, unix.TIOCINQ); err == nil && s.state == connected {
			s.came.note(n, 0)
		}
	}
	s.came.asked.Store(on)
}

// note counts n bytes that are given to the program.
func (a *arrivals) note(n int, at int64) {
	if n <= 0 {
		return
	}
	a.total += int64(n)
	if len(a.list) == arrivalsMax {
		for i := range arrivalsMax / 2 {
			a.list[i] = a.list[2*i+1]
		}
		a.list = a.list[:arrivalsMax/2]
	}
	a.list = append(a.list, arrival{a.total, at})
}

// of is the stamp of the byte before pos; those before it are not asked about again
// unless peek is set.
func (a *arrivals) of(pos int64, peek bool) int64 {
	i := sort.Search(len(a.list), func(i int) bool { return a.list[i].end >= pos })
	if i == len(a.list) {
		return 0
	}
	at := a.list[i].at
	if !peek {
		a.list = append(a.list[:0], a.list[i:]...)
	}
	return at
}

// stamps are the control messages for n bytes that a call has just got from fd.
func (s *stream) stamps(fd, n int, peek bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil || n == 0 {
		return nil
	}
	pos := s.came.total - int64(left)
	if peek {
		pos += int64(n)
	}
	at := s.came.of(pos, peek)
	if at == 0 {
		return nil
	}
	return s.came.want.encodeStamp(nil, at)
}

// tell stores that there is no address, and what there is of control messages for n
// bytes from fd.
func (s *stream) tell(c *intercept.Call, x *transfer, fd, n int) error {
	if err := s.noName(c, x); err != nil || x.hdr == 0 || !s.came.asked.Load() {
		return err
	}
	control, whole := fitControl(s.stamps(fd, n, x.flags&unix.MSG_PEEK != 0), x.controlLen)
	if len(control) > 0 {
		if err := c.WriteMem(x.control, control); err != nil {
			return err
		}
	}
	var tail [12]byte // msg_controllen, msg_flags
	native.PutUint64(tail[:], uint64(len(control)))
	if !whole {
		native.PutUint32(tail[8:], unix.MSG_CTRUNC)
	}
	return c.WriteMem(x.hdr+40, tail[:])
}
