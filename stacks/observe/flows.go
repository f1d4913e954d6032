// SPDX-License-Identifier: Apache-2.0

// Flows: a line of JSON when one begins, and one when it ends.

package observe

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// flowIdle is after how much silence a flow other than TCP's is over.
const flowIdle = time.Minute

// A Line is what a file of flows says of one. Its JSON form is stable: fields are
// added, never renamed.
type Line struct {
	Time        time.Time `json:"time"`  // of the event
	Event       string    `json:"event"` // open or close
	Network     string    `json:"network"`
	Interface   string    `json:"interface"`
	Proto       string    `json:"proto"`     // tcp, udp, icmp, icmpv6, ip-N
	Direction   string    `json:"direction"` // out: begun in the view; in: by the other end
	Local       string    `json:"local"`     // address and port
	Remote      string    `json:"remote"`
	Name        string    `json:"name,omitempty"` // by which the program asked for the address
	PID         int       `json:"pid,omitempty"`
	Program     string    `json:"program,omitempty"`
	TxPackets   uint64    `json:"tx_packets"` // a super-segment is one
	TxBytes     uint64    `json:"tx_bytes"`   // of the network layer
	RxPackets   uint64    `json:"rx_packets"`
	RxBytes     uint64    `json:"rx_bytes"`
	Seconds     float64   `json:"seconds"`               // from the first packet to the last
	RTT         float64   `json:"rtt_ms,omitempty"`      // of TCP's handshake
	Retransmits uint64    `json:"retransmits,omitempty"` // segments that were sent again
	End         string    `json:"end,omitempty"`         // fin, reset, refused, idle, view (it ended first)
}

// Flows is a file of flows, which recorders share. It is safe for concurrent use.
type Flows struct {
	name    string
	resolve func(netip.Addr) string

	mu     sync.Mutex
	file   *os.File
	flows  map[flowKey]*flow
	err    error
	closed bool
}

type flowKey struct {
	network string
	flow    Flow
}

// A flow is one that is open.
type flow struct {
	line        Line
	first, last time.Time
	owner       *ownership

	synOut, synIn   time.Time // when the handshake began
	finOut, finIn   bool
	answered        bool   // something came back
	sent            uint32 // the sequence number after what was sent, RFC 9293
	sentAny, opened bool
}

// CreateFlows creates the file, which only its owner may read. resolve, if not nil,
// gives the name by which an address was asked for, "" if none.
func CreateFlows(name string, resolve func(netip.Addr) string) (*Flows, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &Flows{name: name, resolve: resolve, file: f, flows: make(map[flowKey]*flow)}, nil
}

// Bits of TCP's flags, RFC 9293 §3.1.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	_
	tcpACK
)

// see counts a packet.
func (fs *Flows) see(network, ifName string, p *packet, x parsed, own *ownership) {
	if x.fragment {
		return // its first one counts
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	k := flowKey{network, x.flow}
	f := fs.flows[k]
	tcp := x.flow.Proto == unix.IPPROTO_TCP && len(x.transport) >= 20
	flags := byte(0)
	if tcp {
		flags = x.transport[13]
	}
	if f != nil && tcp && flags&(tcpSYN|tcpACK) == tcpSYN && (f.finOut || f.finIn) { // the ports again
		fs.over(k, f, "fin")
		f = nil
	}
	if f == nil {
		if tcp && flags&tcpSYN == 0 && flags&(tcpFIN|tcpRST) != 0 {
			return // the last words of one that is over
		}
		f = &flow{first: p.at, line: Line{
			Network: network, Interface: ifName, Proto: protoName(x.flow.Proto), Direction: "in",
			Local: endpoint(x.flow, x.flow.Local), Remote: endpoint(x.flow, x.flow.Remote),
		}}
		if p.out {
			f.line.Direction = "out"
		}
		if fs.resolve != nil {
			f.line.Name = fs.resolve(x.flow.Remote.Addr())
		}
		fs.flows[k] = f
	}
	f.last, f.owner = p.at, own
	if p.out {
		f.line.TxPackets++
		f.line.TxBytes += uint64(len(p.data()))
	} else {
		f.line.RxPackets++
		f.line.RxBytes += uint64(len(p.data()))
	}
	if !f.opened && (own.known || own.asked >= askMost || f.line.RxPackets > 0 && f.line.TxPackets > 0) {
		f.opened = true
		fs.say("open", p.at, f)
	}
	if tcp {
		if end := f.tcp(p, x.transport, flags); end != "" {
			fs.over(k, f, end)
		}
	}
}

// endpoint writes an address, with a port where there are ports.
func endpoint(f Flow, a netip.AddrPort) string {
	if f.Proto == unix.IPPROTO_TCP || f.Proto == unix.IPPROTO_UDP {
		return a.String()
	}
	return a.Addr().String()
}

// tcp follows a connection and returns how it ended, "" if it has not.
func (f *flow) tcp(p *packet, t []byte, flags byte) string {
	seq := binary.BigEndian.Uint32(t[4:])
	length := uint32(len(t) - min(len(t), int(t[12]>>4)*4))
	switch {
	case flags&tcpRST != 0:
		if !p.out && flags&tcpACK != 0 && !f.answered && !f.synOut.IsZero() {
			return "refused"
		}
		return "reset"
	case flags&(tcpSYN|tcpACK) == tcpSYN && p.out:
		f.synOut = p.at
	case flags&(tcpSYN|tcpACK) == tcpSYN:
		f.synIn = p.at
	case flags&tcpSYN != 0 && !p.out && !f.synOut.IsZero() && f.line.RTT == 0:
		f.line.RTT = p.at.Sub(f.synOut).Seconds() * 1e3
	case flags&tcpSYN != 0 && p.out: // our half of the answer
		f.synOut = p.at
	case !p.out && !f.synIn.IsZero() && f.line.RTT == 0 && !f.synOut.IsZero():
		f.line.RTT = p.at.Sub(f.synOut).Seconds() * 1e3
	}
	f.answered = f.answered || !p.out
	if p.out {
		end := seq + length
		if flags&(tcpSYN|tcpFIN) != 0 {
			end++
		}
		switch {
		case !f.sentAny || int32(end-f.sent) > 0:
			f.sent, f.sentAny = end, true
		case end != seq && !keepAlive(length, end, f.sent):
			f.line.Retransmits++
		}
	}
	if flags&tcpFIN != 0 {
		if p.out {
			f.finOut = true
		} else {
			f.finIn = true
		}
	} else if f.finOut && f.finIn && length == 0 {
		return "fin" // the last FIN was acknowledged
	}
	return ""
}

// keepAlive tells a probe of RFC 9293 §3.8.4, which sends an old byte or none.
func keepAlive(length, end, sent uint32) bool { return length <= 1 && end == sent }

// over writes that a flow has ended and forgets it.
func (fs *Flows) over(k flowKey, f *flow, how string) {
	delete(fs.flows, k)
	f.line.End = how
	if !f.opened {
		fs.say("open", f.first, f)
	}
	fs.say("close", f.last, f)
}

// say writes a line.
func (fs *Flows) say(event string, at time.Time, f *flow) {
	l := f.line
	l.Event, l.Time, l.Seconds = event, at, f.last.Sub(f.first).Seconds()
	if f.owner != nil && f.owner.known {
		l.PID, l.Program = f.owner.owner.PID, f.owner.owner.Program
	}
	if event == "open" {
		l.End = ""
	}
	b, err := json.Marshal(l)
	if err == nil && fs.err == nil && !fs.closed {
		_, err = fs.file.Write(append(b, '\n'))
	}
	if err != nil && fs.err == nil {
		if pe := (*os.PathError)(nil); errors.As(err, &pe) {
			err = pe.Err // it has the name
		}
		fs.err = fmt.Errorf("write %s: %w", fs.name, err)
	}
}

// expire ends what has gone silent. A TCP connection may be silent for ever.
func (fs *Flows) expire(network string, now time.Time) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for k, f := range fs.flows {
		half := f.finOut || f.finIn
		if k.network == network && now.Sub(f.last) > flowIdle && (k.flow.Proto != unix.IPPROTO_TCP || half || !f.answered) {
			how := "idle"
			if half {
				how = "fin"
			}
			fs.over(k, f, how)
		}
	}
}

// end ends what is open on a network.
func (fs *Flows) end(network string) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var open []flowKey
	for k := range fs.flows {
		if k.network == network {
			open = append(open, k)
		}
	}
	slices.SortFunc(open, func(a, b flowKey) int { return fs.flows[a].first.Compare(fs.flows[b].first) })
	for _, k := range open {
		f := fs.flows[k]
		how := "view"
		if f.finOut && f.finIn {
			how = "fin"
		}
		fs.over(k, f, how)
	}
}

// Close ends the file, and says what could not be written. Twice is fine.
func (fs *Flows) Close() error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		return fs.err
	}
	fs.closed = true
	if err := fs.file.Close(); err != nil && fs.err == nil {
		fs.err = err
	}
	return fs.err
}
