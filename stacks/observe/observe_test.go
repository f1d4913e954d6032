// SPDX-License-Identifier: Apache-2.0

// Tests of captures and flows, of packets that are made here.

package observe

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/offload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A tapped stack has an interface of each type, and shows what it is told to.
type tapped struct{ f func(*stacks.Frame) }

func (*tapped) Socket(int, int, int) (stacks.Socket, error) { return nil, unix.EAFNOSUPPORT }
func (*tapped) Close() error                                { return nil }
func (*tapped) Inject(int, uint16, []byte, any) error       { return unix.ENXIO }
func (t *tapped) Tap(f func(*stacks.Frame)) func() {
	t.f = f
	return func() { t.f = func(*stacks.Frame) {} }
}
func (*tapped) State() stacks.State {
	return stacks.State{Interfaces: []stacks.Interface{
		{Index: 1, Name: "lo", Loop: true}, {Index: 2, Name: "wg0"}, {Index: 3, Name: "tap0", Type: stacks.LinkEthernet},
	}}
}

var (
	here  = netip.MustParseAddrPort("10.0.0.2:4242")
	there = netip.MustParseAddrPort("10.0.0.1:80")
)

// tcp makes a segment; its checksum is that of the pseudo header alone.
func tcp(t testing.TB, out bool, seq, ack uint32, flags string, payload string) *stacks.Frame {
	t.Helper()
	src, dst := here, there
	if !out {
		src, dst = there, here
	}
	ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
	seg := &layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), Seq: seq, Ack: ack, Window: 1000,
		SYN: strings.Contains(flags, "S"), ACK: strings.Contains(flags, "A"), FIN: strings.Contains(flags, "F"), RST: strings.Contains(flags, "R")}
	seg.SetNetworkLayerForChecksum(ip)
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, seg, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	data := b.Bytes()
	var sum uint32 // of the pseudo header, RFC 9293 §3.1
	for i := 12; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	sum += unix.IPPROTO_TCP + uint32(len(data)-20)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(data[36:], uint16(sum))
	return &stacks.Frame{IfIndex: 2, Proto: unix.ETH_P_IP, Outgoing: out, Data: data, Unsummed: true}
}

// record runs frames, a millisecond apart, through a recorder with a capture and
// flows, and returns both files.
func record(t *testing.T, frames ...*stacks.Frame) (capture []byte, lines []Line) {
	t.Helper()
	dir := t.TempDir()
	c, err := CreateCapture(filepath.Join(dir, "c"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := CreateFlows(filepath.Join(dir, "f"), func(a netip.Addr) string {
		if a == there.Addr() {
			return "web.example"
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	st := &tapped{}
	r, err := Start(Config{Network: "office", Stack: st, Captures: []*Capture{c}, Flows: f, Log: slog.New(slog.DiscardHandler),
		Owner: func(f Flow) (Owner, bool) {
			return Owner{PID: 7, Program: "curl", Socket: 99}, f == Flow{unix.IPPROTO_TCP, here, there}
		}})
	if err != nil {
		t.Fatal(err)
	}
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, x := range frames {
		x.Stamp = base.Add(time.Duration(i) * time.Millisecond).UnixNano()
		st.f(x)
	}
	for _, close := range []func() error{r.Close, r.Close, c.Close, c.Close, f.Close, f.Close} {
		if err := close(); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"c", "f"} {
		if i, err := os.Stat(filepath.Join(dir, name)); err != nil || i.Mode().Perm() != 0o600 {
			t.Errorf("file %s: %v, %v", name, i.Mode(), err)
		}
	}
	capture, _ = os.ReadFile(filepath.Join(dir, "c"))
	text, _ := os.ReadFile(filepath.Join(dir, "f"))
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var l Line
		if err := d.Decode(&l); err == io.EOF {
			return capture, lines
		} else if err != nil {
			t.Fatal(err)
		}
		l.Time = l.Time.UTC()
		lines = append(lines, l)
	}
}

// exchange is a request and its answer, with one segment that is sent twice.
func exchange(t *testing.T) []*stacks.Frame {
	return []*stacks.Frame{
		tcp(t, true, 100, 0, "S", ""),
		tcp(t, false, 500, 101, "SA", ""),
		tcp(t, true, 101, 501, "A", ""),
		tcp(t, true, 101, 501, "A", "GET"),
		tcp(t, true, 101, 501, "A", "GET"),
		tcp(t, false, 501, 104, "A", "answer"),
		tcp(t, true, 104, 507, "FA", ""),
		tcp(t, false, 507, 105, "FA", ""),
		tcp(t, true, 105, 508, "A", ""),
	}
}

func TestFlows(t *testing.T) {
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	line := Line{Event: "open", Time: base, Network: "office", Interface: "wg0", Proto: "tcp", Direction: "out", Local: "10.0.0.2:4242", Remote: "10.0.0.1:80",
		Name: "web.example", PID: 7, Program: "curl", TxPackets: 1, TxBytes: 40}
	end := func(l Line, ms int, tx, rx, txBytes, rxBytes uint64, rtt float64, how string) Line {
		l.Event, l.Time, l.Seconds = "close", base.Add(time.Duration(ms)*time.Millisecond), float64(ms)/1e3
		l.TxPackets, l.RxPackets, l.TxBytes, l.RxBytes, l.RTT, l.End = tx, rx, txBytes, rxBytes, rtt, how
		return l
	}
	tests := []struct {
		name   string
		frames []*stacks.Frame
		want   []Line
	}{
		{"whole", exchange(t), func() []Line {
			l := end(line, 8, 6, 3, 6*40+6, 3*40+6, 1, "fin")
			l.Retransmits = 1
			return []Line{line, l}
		}()},
		{"refused", []*stacks.Frame{tcp(t, true, 100, 0, "S", ""), tcp(t, false, 0, 101, "RA", "")},
			[]Line{line, end(line, 1, 1, 1, 40, 40, 0, "refused")}},
		{"reset", append(exchange(t)[:4], tcp(t, false, 501, 104, "R", "")),
			[]Line{line, end(line, 4, 3, 2, 3*40+3, 80, 1, "reset")}},
		{"open at the end", exchange(t)[:4], []Line{line, end(line, 3, 3, 1, 3*40+3, 40, 1, "view")}},
		{"last words only", []*stacks.Frame{tcp(t, true, 1, 1, "FA", ""), tcp(t, false, 1, 1, "R", "")}, nil},
		{"the ports again", append(exchange(t)[:2], append(exchange(t)[6:8], exchange(t)[:1]...)...), []Line{
			line, end(line, 3, 2, 2, 80, 80, 1, "fin"),
			func() Line { l := line; l.Time = base.Add(4 * time.Millisecond); return l }(),
			func() Line {
				l := end(line, 0, 1, 0, 40, 0, 0, "view")
				l.Time = base.Add(4 * time.Millisecond)
				return l
			}(),
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got := record(t, tt.frames...)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestCapture(t *testing.T) {
	frames := exchange(t)
	arp := &stacks.Frame{IfIndex: 3, Proto: unix.ETH_P_ARP, Header: make([]byte, 14), Data: make([]byte, 28)}
	frames = append(frames, arp, &stacks.Frame{IfIndex: 1, Loop: true, Data: frames[0].Data})
	b, _ := record(t, frames...)
	r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	var n int
	for ; ; n++ {
		data, ci, o, err := r.ReadPacketDataWithOptions()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		ifc, err := r.Interface(ci.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		if n == 9 {
			if ifc.Name != "tap0" || ifc.LinkType != layers.LinkTypeEthernet || len(data) != 42 {
				t.Errorf("ARP: %d bytes on %s, link type %v", len(data), ifc.Name, ifc.LinkType)
			}
			continue
		}
		if ifc.Name != "wg0" || ifc.LinkType != layers.LinkTypeRaw {
			t.Errorf("packet %d on %s, link type %v", n, ifc.Name, ifc.LinkType)
		}
		want := []string(nil)
		if n == 0 {
			want = []string{"office: curl, process 7, socket 99"}
		}
		if d := cmp.Diff(want, o.Comments); d != "" {
			t.Errorf("comments of packet %d: -want +got:\n%s", n, d)
		}
		if out := o.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound; out != frames[n].Outgoing {
			t.Errorf("packet %d: outbound %v", n, out)
		}
		if !offload.Verify(data) {
			t.Errorf("packet %d has a wrong checksum", n)
		}
	}
	if n != 10 {
		t.Errorf("%d packets, want 10", n)
	}
}

// TestParse looks at packets that are cut off or odd: none may be taken for a flow
// with ports that it does not have.
func TestParse(t *testing.T) {
	whole := tcp(t, true, 1, 0, "S", "").Data
	for n := range whole {
		if x, ok := parse(&packet{frame: whole[:n], out: true}); ok && x.flow.Local.Port() != 0 && n < 24 {
			t.Errorf("%d bytes: %v", n, x.flow)
		}
	}
	fragment := bytes.Clone(whole)
	fragment[7] = 8
	if x, ok := parse(&packet{frame: fragment, out: true}); !ok || !x.fragment || x.flow.Local.Port() != 0 {
		t.Errorf("a later fragment: %v, %v", x, ok)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(tcp(f, true, 1, 0, "S", "data").Data, true)
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 8, 0, 64}, make([]byte, 40)...), false)
	f.Fuzz(func(t *testing.T, b []byte, out bool) {
		p := &packet{frame: b, out: out, undone: true}
		if x, ok := parse(p); ok && len(x.transport) > len(b) {
			t.Errorf("%d bytes of %d", len(x.transport), len(b))
		}
		finish(p)
		if !bytes.Equal(b[:min(len(b), 16)], p.frame[:min(len(b), 16)]) || len(p.frame) != len(b) {
			t.Error("finish changed more than a checksum")
		}
	})
}
