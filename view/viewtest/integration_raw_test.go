// SPDX-License-Identifier: Apache-2.0

// Raw sockets: transcripts, and the programs that use them.

package viewtest_test

import (
	"testing"

	"umrun/view/viewtest"
)

func init() {
	capable = append(capable, "raw 4", "raw 6", "rawsend 4", "rawsend 6", "rawfilter 4", "rawfilter 6", "sockopt raw4", "sockopt raw6")
}

// rawPrograms open raw sockets, as an ordinary user.
var rawPrograms = []client{
	{name: "busybox-ping", needs: []string{"busybox"}, args: words("busybox ping -c2 -W5 10.77.0.1"), want: "/2 packets transmitted, 2 packets received, 0% packet loss/"},
	{name: "busybox-ping6", needs: []string{"busybox"}, args: words("busybox ping -c2 -W5 fd77::1"), want: "/seq=1 ttl=64 .*\n(?s:.*)2 packets received, 0% packet loss/"},
	{name: "fping", needs: []string{"fping"}, args: words("fping -c2 -p100 10.77.0.1 fd77::1"), want: "/10.77.0.1 : \\[1\\], 64 bytes(?s:.*)fd77::1 +: \\[1\\], 64 bytes/"},
	{name: "traceroute-icmp", needs: []string{"traceroute"}, args: words("traceroute -I -n -w2 -q1 10.77.0.1"), want: "/\n 1  10.77.0.1  [0-9.]+ ms\n$/"},
	{name: "traceroute-tcp", needs: []string{"traceroute"}, args: words("traceroute -T -p7 -n -w2 -q1 10.77.0.1"), want: "/\n 1  10.77.0.1  [0-9.]+ ms\n$/"},
	{name: "traceroute-tcp-v6", needs: []string{"traceroute"}, args: words("traceroute -T -p7 -n -w2 -q1 fd77::1"), want: "/\n 1  fd77::1  [0-9.]+ ms\n$/"},
	{name: "mtr", needs: []string{"mtr"}, args: words("mtr -n -c2 -i1 -G1 -r 10.77.0.1"), want: "/1.\\|-- 10.77.0.1 +0.0% +2 /"},
	{name: "mtr-v6", needs: []string{"mtr"}, args: words("mtr -6 -n -c1 -G1 -r fd77::1"), want: "/1.\\|-- fd77::1 +0.0% +1 /"},
	{name: "mtr-udp", needs: []string{"mtr"}, args: words("mtr -u -n -c1 -G1 -r 10.77.0.1"), want: "/1.\\|-- 10.77.0.1 +0.0% +1 /"},
	{name: "mtr-tcp", needs: []string{"mtr"}, args: words("mtr -T -P7 -n -c1 -G1 -r 10.77.0.1"), want: "/1.\\|-- 10.77.0.1 +0.0% +1 /"},
	{name: "nmap-connect", needs: []string{"nmap"}, args: words("nmap --unprivileged -n -Pn -p7,1006 10.77.0.1"), want: "/7/tcp +open +echo\n1006/tcp closed /"},
}

// TestIntegrationRawPrograms runs each in a view of its own.
func TestIntegrationRawPrograms(t *testing.T) {
	w := viewtest.New(t)
	for _, c := range rawPrograms {
		t.Run(c.name, func(t *testing.T) { c.run(t, w, w.Peers[0], nil, "") })
	}
}
