// SPDX-License-Identifier: Apache-2.0

// The server of urgent data.

package viewtest

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// urgent sends urgent data among other, then waits for some, and tells how many
// bytes it got before and after it, and what it was.
func urgent(c *net.TCPConn) {
	f, err := c.File()
	if err != nil {
		return
	}
	defer f.Close()
	fd := int(f.Fd()) // blocking from here on
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	for _, m := range []struct {
		text  string
		flags int
	}{{"ab", 0}, {"!", unix.MSG_OOB}, {"cd", 0}} {
		if err := unix.Send(fd, []byte(m.text), m.flags|unix.MSG_NOSIGNAL); err != nil {
			return
		}
	}
	found := "no urgent data"
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	if n, err := unix.Poll(p, 3000); err == nil && n == 1 {
		var b [1]byte
		for err = unix.EAGAIN; err == unix.EAGAIN; { // told of, but not there yet
			_, _, err = unix.Recvfrom(fd, b[:], unix.MSG_OOB)
		}
		found = fmt.Sprintf("urgent %q %v", b, err)
	}
	before, at := 0, 0
	buf := make([]byte, 4096)
	for {
		if at == 0 {
			if at, err = unix.IoctlGetInt(fd, unix.SIOCATMARK); err != nil {
				return
			}
			if at != 0 {
				found += fmt.Sprintf(", %d bytes before", before)
				before = 0
			}
		}
		n, err := unix.Read(fd, buf)
		if n <= 0 || err != nil {
			break
		}
		before += n
	}
	fmt.Fprintf(c, "%s, %d then\n", found, before)
}
