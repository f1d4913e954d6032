// SPDX-License-Identifier: Apache-2.0

// Capturing as an ordinary user: tcpdump, and what else uses libpcap.

package viewtest_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"umrun/view/viewtest"
)

// Link types of pcap-linktype(7).
const (
	linkEthernet = 1
	linkRaw      = 101
	linkCooked2  = 276
)

// TestIntegrationCapture runs tcpdump while the network is used.
func TestIntegrationCapture(t *testing.T) {
	viewtest.Need(t, "tcpdump", "curl", "ping")
	w, p, _ := lab(t)
	for _, c := range []struct {
		name, tcpdump, use string
		want               string // regular expression for stdout
	}{
		{"lo", "-i lo -l -n -c4 icmp", "ping -c2 -i0.3 127.0.0.1",
			`(?s)IP 127\.0\.0\.1 > 127\.0\.0\.1: ICMP echo request, id \d+, seq 1.*echo reply, id \d+, seq 1.*echo request.*seq 2.*echo reply`},
		{"tunnel", "-i office -l -n -c2 icmp", "ping -c1 10.77.0.1", `(?s)IP SELF4 > 10\.77\.0\.1: ICMP echo request.*IP 10\.77\.0\.1 > SELF4: ICMP echo reply`},
		{"tunnel-v6", "-i office -l -n -c2 icmp6 and host fd77::1", "ping -c1 fd77::1", `(?s)IP6 SELF6 > fd77::1: ICMP6, echo request.*IP6 fd77::1 > SELF6: ICMP6, echo reply`},
		{"immediate", "-i office -l -n --immediate-mode -c2 icmp", "ping -c1 10.77.0.1", `(?s)echo request.*echo reply`},
		{"no-promiscuous-mode", "-i office -p -l -n -c2 icmp", "ping -c1 10.77.0.1", `(?s)echo request.*echo reply`},
		{"any", "-i any -l -n -c2 icmp and host 10.77.0.1", "ping -c1 10.77.0.1", `(?s)office Out IP SELF4 > 10\.77\.0\.1.*office In +IP 10\.77\.0\.1 > SELF4`},
		{"direction", "-i office -Q in -l -n -c1 icmp", "ping -c1 10.77.0.1", `^[^\n]* IP 10\.77\.0\.1 > SELF4: ICMP echo reply[^\n]*\n$`},
		{"filter", "-i office -l -n -c1 icmp and src 10.77.0.1", "ping -c1 10.77.0.1", `^[^\n]* IP 10\.77\.0\.1 > SELF4: ICMP echo reply[^\n]*\n$`},
		{"filter-vlan", "-i lo -l -n -c1 icmp and not vlan", "ping -c1 127.0.0.1", `echo request`},
		{"nanoseconds", "-i office -j host --time-stamp-precision=nano -l -n -c1 icmp", "ping -c1 10.77.0.1", `^\d\d:\d\d:\d\d\.\d{9} IP`},
		{"small", "-i office -s 60 -B 64 -l -n -c2 icmp", "ping -c1 -s1000 10.77.0.1", `(?s)length 1008.*length 1008`},
	} {
		t.Run(c.name, func(t *testing.T) {
			me := p.Client(t)
			// tcpdump ends by itself, after so many packets.
			script := fmt.Sprintf("tcpdump %s 2>err & p=$!; until grep -q listening err; do sleep 0.05; kill -0 $p || break; done; %s >/dev/null; wait $p; s=$?; cat err >&2; exit $s", c.tcpdump, c.use)
			u := w.Umrun(t, "office=wg:"+me.Conf, "sh", "-c", script)
			u.Dir = workdir(t, w)
			r := u.Result()
			want := strings.NewReplacer("SELF4", regexp.QuoteMeta(me.IP4.String()), "SELF6", regexp.QuoteMeta(me.IP6.String())).Replace(c.want)
			if r.Status != 0 || !regexp.MustCompile(want).MatchString(r.Stdout) || !strings.Contains(r.Stderr, "\n0 packets dropped by kernel") {
				t.Errorf("want %q, got %v", want, r)
			}
		})
	}
	t.Run("list", func(t *testing.T) {
		r := w.Umrun(t, "office=wg:"+p.Client(t).Conf, "tcpdump", "-D").Result()
		if r.Status != 0 || !strings.Contains(r.Stdout, ".office [Up, Running") || !strings.Contains(r.Stdout, ".lo [Up, Running, Loopback]") ||
			strings.Contains(r.Stdout, "link0") || strings.Contains(r.Stdout, "sink0") || r.Stderr != "" {
			t.Errorf("got %v", r)
		}
	})
	t.Run("arping", func(t *testing.T) {
		viewtest.Need(t, "arping")
		// As on a WireGuard device of the kernel, which has no link address.
		for dev, want := range map[string]string{"office": "Device office not available", "lo": `Interface "lo" is not ARPable`} {
			r := w.Umrun(t, "office=wg:"+p.Client(t).Conf, "arping", "-c1", "-I", dev, "10.77.0.1").Result()
			if r.Status != 2 || !strings.Contains(r.Stdout+r.Stderr, want) {
				t.Errorf("got %v", r)
			}
		}
	})
	t.Run("nmap", func(t *testing.T) {
		viewtest.Need(t, "nmap")
		r := w.Umrun(t, "office=wg:"+p.Client(t).Conf, "nmap", "--privileged", "-n", "-Pn", "-sS", "-p", "79-80", "--reason", "10.77.0.1").Result()
		if !regexp.MustCompile(`79/tcp closed \S+ +reset ttl 64\n80/tcp open +http +syn-ack ttl 64`).MatchString(r.Stdout) {
			t.Errorf("got %v", r)
		}
	})
	t.Run("tshark", func(t *testing.T) {
		viewtest.Optional(t, "tshark")
		u := w.Umrun(t, "office=wg:"+p.Client(t).Conf, "sh", "-c", "tshark -i office -n -l -c2 -f icmp 2>err & until grep -q Capturing err; do sleep 0.05; done; sleep 1; ping -c1 10.77.0.1 >/dev/null; wait; cat err >&2")
		u.Dir = workdir(t, w)
		if r := u.Result(); strings.Count(r.Stdout, "ICMP") != 2 {
			t.Errorf("got %v", r)
		}
	})
	t.Run("dumpcap", func(t *testing.T) {
		viewtest.Optional(t, "dumpcap")
		me := p.Client(t)
		u := w.Umrun(t, "office=wg:"+me.Conf, "sh", "-c", "dumpcap -q -P -i office -a duration:2 -f 'host 10.77.0.1' -w all.pcap 2>err & sleep 1; curl -sS -m5 -o /dev/null http://10.77.0.1/; wait; cat err")
		u.Dir = workdir(t, w)
		r := u.Result()
		link, packets := readPcap(t, filepath.Join(u.Dir, "all.pcap"))
		if link != linkRaw || len(packets) < 6 {
			t.Errorf("link type %d, %d packets: %v", link, len(packets), r)
		}
	})
	w.NoStrays(t)
}

// TestIntegrationCaptureFile: a capture in the view holds the same bytes as one on
// the peer's side of the tunnel.
func TestIntegrationCaptureFile(t *testing.T) {
	viewtest.Need(t, "tcpdump", "curl")
	w, p, _ := lab(t)
	me := p.Client(t)
	dir := workdir(t, w)
	filter := fmt.Sprintf("tcp port 80 and host %v", me.IP4)
	theirs := filepath.Join(dir, "peer.pcap")
	far := start(t, p.Cmd(t.Context(), "tcpdump", "-i", "wg0", "-Z", "root", "-U", "-n", "-w", theirs, filter))
	viewtest.Eventually(t, 5*time.Second, func() error {
		if !strings.Contains(far.Errors(), "listening") {
			return fmt.Errorf("the peer's tcpdump: %s", far.Errors())
		}
		return nil
	})
	u := w.Umrun(t, "office=wg:"+me.Conf, "sh", "-c", `
		tcpdump -i office -n -w view.pcap '`+filter+`' 2>err1 & a=$!
		tcpdump -i any -n -w any.pcap '`+filter+`' 2>err2 & b=$!
		until grep -q listening err1 && grep -q listening err2; do sleep 0.05; done
		for i in 1 2; do curl -fsS -m10 -o got -r 0-399999 http://10.77.0.1/big.bin; done
		sleep 1.5; kill -INT $a $b; wait $a; wait $b
		cat err1 err2; tcpdump -nr view.pcap 2>/dev/null | wc -l`)
	u.Dir = dir
	r := u.Result()
	if r.Status != 0 || strings.Count(r.Stdout, "\n0 packets dropped by kernel") != 2 {
		t.Fatalf("got %v", r)
	}
	link, mine := readPcap(t, filepath.Join(dir, "view.pcap"))
	if link != linkRaw {
		t.Errorf("link type %d", link)
	}
	want := flows{}
	viewtest.Eventually(t, 5*time.Second, func() error { // the peer's tcpdump writes when it likes
		_, packets := readPcap(t, theirs)
		want = assemble(t, packets)
		if diff := cmp.Diff(want, assemble(t, mine), unexported); diff != "" {
			return fmt.Errorf("-peer +view: %.2000s", diff)
		}
		return nil
	})
	if len(want) < 4 {
		t.Errorf("%d directions: %v", len(want), r)
	}
	link, cooked := readPcap(t, filepath.Join(dir, "any.pcap"))
	if link != linkCooked2 {
		t.Errorf("any: link type %d", link)
	}
	for i, b := range cooked {
		if len(b) < 20 || binary.BigEndian.Uint16(b) != 0x0800 || binary.BigEndian.Uint16(b[8:]) != 0xfffe {
			t.Fatalf("any: %x", b)
		}
		cooked[i] = b[20:]
	}
	if diff := cmp.Diff(want, assemble(t, cooked), unexported); diff != "" {
		t.Errorf("any: -peer +view: %.2000s", diff)
	}
	w.NoStrays(t)
}

var unexported = cmpopts.IgnoreUnexported(flow{})

// workdir is a directory that the ordinary user may write to.
func workdir(t *testing.T, w *viewtest.World) string {
	t.Helper()
	dir, err := os.MkdirTemp(w.Home(), "capture")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// readPcap reads a file of pcap-savefile(5).
func readPcap(t *testing.T, path string) (link int, packets [][]byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) < 24 || binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 {
		t.Fatalf("%s is no capture: %.40x", path, b)
	}
	link = int(binary.LittleEndian.Uint32(b[20:]))
	for b = b[24:]; len(b) >= 16; {
		n, size := int(binary.LittleEndian.Uint32(b[8:])), int(binary.LittleEndian.Uint32(b[12:]))
		if len(b) < 16+n {
			break // not written yet
		}
		if n != size {
			t.Errorf("%s: %d of %d bytes", path, n, size)
		}
		packets = append(packets, b[16:16+n])
		b = b[16+n:]
	}
	return link, packets
}

// flows are the directions of TCP connections, however they were cut into segments.
type flows map[string]*flow

// A flow is what went one way.
type flow struct {
	SYN, FIN bool
	Data     string // what is there at its place in the stream

	first uint32 // sequence number of the first byte
	bytes []byte
}

// assemble puts IPv4 packets together.
func assemble(t *testing.T, packets [][]byte) flows {
	t.Helper()
	all := flows{}
	for _, b := range packets {
		if len(b) < 40 || b[0] != 0x45 || b[9] != 6 || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			t.Fatalf("no TCP over IPv4: %.60x", b)
		}
		tcp := b[20:]
		addr := func(ip, port []byte) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip)), binary.BigEndian.Uint16(port))
		}
		key := fmt.Sprint(addr(b[12:], tcp), " > ", addr(b[16:], tcp[2:]))
		f := all[key]
		if f == nil {
			f = &flow{}
			all[key] = f
		}
		seq := binary.BigEndian.Uint32(tcp[4:])
		if tcp[13]&2 != 0 {
			f.SYN, f.first = true, seq+1
		}
		f.FIN = f.FIN || tcp[13]&1 != 0
		data := tcp[tcp[12]>>4*4:]
		if len(data) == 0 {
			continue
		}
		at := int(seq - f.first)
		if end := at + len(data); end > len(f.bytes) {
			f.bytes = append(f.bytes, make([]byte, end-len(f.bytes))...)
		}
		copy(f.bytes[at:], data)
		f.Data = string(f.bytes)
	}
	return all
}
