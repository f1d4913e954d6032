// SPDX-License-Identifier: Apache-2.0

// Raw sockets held against the kernel, under the race detector; the many single cases
// are transcripts (testdata/targets/raw*.c).

package netmod_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRawTranscript(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: natively a raw socket takes CAP_NET_RAW")
	}
	compare(t, "raw", nil)
}

func init() { targets["raw"] = rawSockets }

// experiment is a protocol that nothing else uses (RFC 3692).
const experiment = 253

func rawSockets(w *transcript) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, experiment)
	w.must("socket", err)
	w.say("new: %s", events(fd, 0))
	w.must("sendto", unix.Sendto(fd, []byte("first"), 0, loopback4))
	w.must("sendto", unix.Sendto(fd, []byte("second"), 0, loopback4))
	w.until("sent", fd, unix.POLLIN)
	b := make([]byte, 100)
	n, from, err := unix.Recvfrom(fd, b, unix.MSG_PEEK)
	w.say("peek %d %v %v", n, from, err)
	n, err = unix.Read(fd, b)
	w.say("read %q of protocol %d %v", b[20:max(n, 20)], b[9], err)
	w.until("the second", fd, unix.POLLIN)
	n, from, err = unix.Recvfrom(fd, b, 0)
	w.say("recvfrom %q %v %v", b[20:max(n, 20)], from, err)

	w.result("connect", unix.Connect(fd, loopback4))
	waited := make(chan error)
	go func() { // waits in the call
		_, _, err := unix.Recvfrom(fd, b, 0)
		waited <- err
	}()
	_, err = unix.Write(fd, []byte("third"))
	w.result("write", err)
	w.result("waited", <-waited)

	v := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 20}, {Code: unix.BPF_JMP | unix.BPF_JEQ, Jf: 1, K: 'y'},
		{Code: unix.BPF_RET, K: 22}, {Code: unix.BPF_RET}}
	w.result("filter", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(v)), Filter: &v[0]}))
	for _, s := range []string{"no", "yes"} {
		_, err = unix.Write(fd, []byte(s))
		w.result("write", err)
	}
	n, _, err = unix.Recvfrom(fd, b, 0)
	w.say("filtered %q %v", b[20:max(n, 20)], err)

	w.result("hdrincl", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_HDRINCL, 1))
	packet := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 7, experiment, 0, 0, 0, 0, 0, 0, 127, 0, 0, 1}, "yours"...)
	w.must("sendto", unix.Sendto(fd, packet, 0, loopback4))
	n, _, err = unix.Recvfrom(fd, b, 0)
	w.say("by hand %d with TTL %d %v", n, b[8], err)
	w.result("short", unix.Sendto(fd, packet[:19], 0, loopback4))
	w.must("close", unix.Close(fd))
}
