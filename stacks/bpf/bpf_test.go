// SPDX-License-Identifier: Apache-2.0

// Programs held against the kernel, which runs them on sockets that need no
// privileges: a pair of AF_UNIX datagram sockets, and UDP on loopback.

package bpf_test

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/stacks/bpf"
)

// An op is one instruction: code, jt, jf, k.
type op struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

func program(ops ...op) []byte {
	var b []byte
	for _, o := range ops {
		b = binary.NativeEndian.AppendUint16(b, o.code)
		b = append(b, o.jt, o.jf)
		b = binary.NativeEndian.AppendUint32(b, o.k)
	}
	return b
}

// attach gives the kernel a program.
func attach(fd int, raw []byte) error {
	f := make([]unix.SockFilter, len(raw)/bpf.InsnLen)
	for i := range f {
		b := raw[i*bpf.InsnLen:]
		f[i] = unix.SockFilter{Code: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:])}
	}
	prog := unix.SockFprog{Len: uint16(len(f))}
	if len(f) > 0 {
		prog.Filter = &f[0]
	}
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		uintptr(unsafe.Pointer(&prog)), unsafe.Sizeof(prog), 0)
	runtime.KeepAlive(f)
	if e != 0 {
		return e
	}
	return nil
}

// A pair is two connected AF_UNIX datagram sockets.
type pair [2]int

func newPair(t testing.TB) pair {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds
}

// kept is how many bytes of data the kernel keeps under the attached program; -1 if
// it drops the datagram.
func (p pair) kept(t testing.TB, data []byte) int {
	if _, err := unix.Write(p[0], data); err != nil && err != unix.EPERM { // EPERM: dropped (unix_dgram_sendmsg)
		t.Fatal(err)
	}
	n, err := unix.Read(p[1], make([]byte, len(data)+1))
	switch err {
	case nil:
		return n
	case unix.EAGAIN:
		return -1
	}
	t.Fatal(err)
	return 0
}

// same holds Parse and Run against the kernel.
func same(t testing.TB, p pair, raw, data []byte) {
	kernel := attach(p[1], raw)
	prog, err := bpf.Parse(raw)
	if (kernel == nil) != (err == nil) || err != nil && err != kernel {
		t.Fatalf("program %x: kernel %v, Parse %v", raw, kernel, err)
	}
	if err != nil {
		return
	}
	got := int(min(prog.Run(&bpf.Packet{Data: data}), uint32(len(data))))
	if got == 0 {
		got = -1
	}
	if want := p.kept(t, data); got != want {
		t.Errorf("program %x on %x: kernel keeps %d, Run %d", raw, data, want, got)
	}
}

// Short names for the tables.
const (
	ld, ldx, st, stx = unix.BPF_LD, unix.BPF_LDX, unix.BPF_ST, unix.BPF_STX
	alu, jmp, ret    = unix.BPF_ALU, unix.BPF_JMP, unix.BPF_RET
	w, h, b          = unix.BPF_W, unix.BPF_H, unix.BPF_B
	abs, ind, imm    = unix.BPF_ABS, unix.BPF_IND, unix.BPF_IMM
	mem, length, msh = unix.BPF_MEM, unix.BPF_LEN, unix.BPF_MSH
	x                = unix.BPF_X
	retA             = ret | 0x10
	tax, txa         = unix.BPF_MISC | unix.BPF_TAX, unix.BPF_MISC | unix.BPF_TXA
)

// TestKernel holds single behaviours against the kernel.
func TestKernel(t *testing.T) {
	data := []byte{0x45, 0, 0, 20, 0x12, 0x34, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 8, 0, 0xff, 0xee}
	keepA := op{code: retA}
	keep := func(n uint32) op { return op{code: ret, k: n} }
	tests := map[string][]op{
		"keep all":                {keep(0xffffffff)},
		"keep some":               {keep(5)},
		"drop":                    {keep(0)},
		"keep more than there is": {keep(1000)},
		"byte":                    {{code: ld | b | abs, k: 9}, keepA},
		"half word":               {{code: ld | h | abs, k: 2}, keepA},
		"word":                    {{code: ld | w | abs, k: 0}, {code: alu | unix.BPF_RSH, k: 28}, keepA},
		"byte beyond the end":     {{code: ld | b | abs, k: 24}, keep(9)},
		"half beyond the end":     {{code: ld | h | abs, k: 23}, keep(9)},
		"word beyond the end":     {{code: ld | w | abs, k: 21}, keep(9)},
		"last word":               {{code: ld | w | abs, k: 20}, keep(9)},
		"indirect":                {{code: ldx | w | imm, k: 8}, {code: ld | b | ind, k: 1}, {code: alu | unix.BPF_ADD, k: 2}, keepA},
		"indirect from behind":    {{code: ldx | w | imm, k: 0xfffffffc}, {code: ld | b | ind, k: 13}, keepA},
		"indirect beyond":         {{code: ldx | w | imm, k: 20}, {code: ld | w | ind, k: 1}, keep(9)},
		"header length":           {{code: ldx | b | msh, k: 0}, {code: txa}, keepA},
		"header length beyond":    {{code: ldx | b | msh, k: 100}, keep(9)},
		"length":                  {{code: ld | w | length}, {code: alu | unix.BPF_SUB, k: 3}, keepA},
		"length in X":             {{code: ldx | w | length}, {code: txa}, {code: alu | unix.BPF_SUB, k: 4}, keepA},
		"memory":                  {{code: ld | imm, k: 6}, {code: st, k: 15}, {code: ldx | w | mem, k: 15}, {code: stx, k: 0}, {code: ld | mem, k: 0}, keepA},
		"memory not stored":       {{code: ld | mem, k: 3}, keepA},
		"memory stored one way": {{code: ld | b | abs}, {code: jmp | unix.BPF_JEQ, k: 1, jt: 0, jf: 1}, {code: st, k: 1},
			{code: ld | mem, k: 1}, keepA},
		"memory stored both ways": {{code: ld | b | abs}, {code: jmp | unix.BPF_JEQ, k: 0x45, jt: 0, jf: 2}, {code: st, k: 1},
			{code: jmp | unix.BPF_JA, k: 1}, {code: stx, k: 1}, {code: ld | mem, k: 1}, keepA},
		"memory out of range":       {{code: st, k: 16}, keepA},
		"divide":                    {{code: ld | imm, k: 40}, {code: alu | unix.BPF_DIV, k: 4}, keepA},
		"divide by zero":            {{code: alu | unix.BPF_DIV, k: 0}, keep(9)},
		"divide by X zero":          {{code: ld | imm, k: 40}, {code: alu | unix.BPF_DIV | x}, keep(9)},
		"modulo":                    {{code: ld | imm, k: 47}, {code: alu | 0x90, k: 40}, keepA},
		"modulo zero":               {{code: alu | 0x90, k: 0}, keep(9)},
		"modulo X zero":             {{code: ld | imm, k: 40}, {code: alu | 0x90 | x}, keep(9)},
		"xor":                       {{code: ld | imm, k: 12}, {code: alu | 0xa0, k: 5}, keepA},
		"negate":                    {{code: ld | imm, k: 0xfffffff9}, {code: alu | unix.BPF_NEG}, keepA},
		"multiply over":             {{code: ld | imm, k: 0x80000003}, {code: alu | unix.BPF_MUL, k: 2}, keepA},
		"shift by 32":               {{code: ld | imm, k: 7}, {code: alu | unix.BPF_LSH, k: 32}, keepA},
		"shift by X 33":             {{code: ldx | imm, k: 33}, {code: ld | imm, k: 7}, {code: alu | unix.BPF_LSH | x}, keepA},
		"compare":                   {{code: ld | h | abs, k: 4}, {code: jmp | unix.BPF_JGT, k: 0x1233, jt: 0, jf: 1}, keep(7), keep(8)},
		"compare unsigned":          {{code: ld | imm, k: 0xffffffff}, {code: jmp | unix.BPF_JGE, k: 1, jt: 0, jf: 1}, keep(7), keep(8)},
		"compare with X":            {{code: ldx | imm, k: 3}, {code: ld | imm, k: 3}, {code: jmp | unix.BPF_JEQ | x, jt: 1, jf: 0}, keep(7), keep(8)},
		"bits":                      {{code: ld | imm, k: 6}, {code: jmp | unix.BPF_JSET, k: 9, jt: 0, jf: 1}, keep(7), keep(8)},
		"jump":                      {{code: jmp | unix.BPF_JA, k: 1}, keep(7), keep(8)},
		"jump behind the end":       {{code: jmp | unix.BPF_JA, k: 1}, keep(7)},
		"branch behind the end":     {{code: jmp | unix.BPF_JEQ, jt: 1}, keep(7)},
		"no return at the end":      {keep(7), {code: tax}},
		"unknown instruction":       {{code: 0xffff}, keep(7)},
		"load of no size":           {{code: ld | 0x18 | abs}, keep(7)},
		"negate X":                  {{code: alu | unix.BPF_NEG | x}, keep(7)},
		"extended instruction":      {{code: 0x07}, {code: 0x95}},
		"protocol":                  {{code: ld | h | abs, k: 0xfffff000}, {code: alu | unix.BPF_ADD, k: 3}, keepA},
		"packet type":               {{code: ld | h | abs, k: 0xfffff004}, {code: alu | unix.BPF_ADD, k: 3}, keepA},
		"interface":                 {{code: ld | w | abs, k: 0xfffff008}, keep(7)},
		"type of the interface":     {{code: ld | w | abs, k: 0xfffff01c}, keep(7)},
		"mark":                      {{code: ld | w | abs, k: 0xfffff014}, {code: alu | unix.BPF_ADD, k: 3}, keepA},
		"queue":                     {{code: ld | w | abs, k: 0xfffff018}, {code: alu | unix.BPF_ADD, k: 3}, keepA},
		"xor with X":                {{code: ldx | imm, k: 5}, {code: ld | imm, k: 12}, {code: ld | w | abs, k: 0xfffff028}, keepA},
		"vlan":                      {{code: ld | w | abs, k: 0xfffff030}, {code: alu | unix.BPF_ADD, k: 3}, keepA},
		"vlan or not":               {{code: ld | w | abs, k: 0xfffff02c}, {code: alu | unix.BPF_ADD, k: 3}, keepA},
		"unknown ancillary":         {{code: ld | w | abs, k: 0xfffff040}, keep(7)},
		"odd ancillary":             {{code: ld | w | abs, k: 0xfffff002}, keep(7)},
		"low negative":              {{code: ld | w | abs, k: 0x80000000}, keep(7)},
		"netlink attribute":         {{code: ld | imm, k: 8}, {code: ldx | imm, k: 1}, {code: ld | w | abs, k: 0xfffff00c}, {code: alu | unix.BPF_ADD, k: 1}, keepA},
		"nested netlink attribute":  {{code: ld | imm, k: 8}, {code: ldx | imm, k: 1}, {code: ld | w | abs, k: 0xfffff010}, {code: alu | unix.BPF_ADD, k: 1}, keepA},
		"netlink attribute too far": {{code: ld | imm, k: 21}, {code: ld | w | abs, k: 0xfffff00c}, {code: alu | unix.BPF_ADD, k: 1}, keepA},
	}
	for name, ops := range tests {
		t.Run(name, func(t *testing.T) { same(t, newPair(t), program(ops...), data) })
	}
	t.Run("most instructions", func(t *testing.T) {
		ops := slices.Repeat([]op{{code: tax}}, bpf.MaxInsns-1)
		same(t, newPair(t), program(append(ops, keep(7))...), data)
	})
	t.Run("netlink attributes", func(t *testing.T) {
		// One of 12 bytes with type 3, in which are one of 4 (type 1, nested bit
		// set) and one of 4 (type 2); then one of 5 with type 9.
		attrs := []byte{12, 0, 3, 0, 4, 0, 1, 0x80, 4, 0, 2, 0, 5, 0, 9, 0, 1}
		for _, from := range []uint32{0, 4, 8, 12, 13, 14, 17, 0xffffffff} {
			for _, typ := range []uint32{1, 2, 3, 9, 0x8001, 0x10001} {
				for _, anc := range []uint32{0xfffff00c, 0xfffff010} {
					same(t, newPair(t), program(op{code: ld | imm, k: from}, op{code: ldx | imm, k: typ},
						op{code: ld | w | abs, k: anc}, op{code: alu | unix.BPF_ADD, k: 1}, keepA), attrs)
				}
			}
		}
	})
}

// TestUDP looks at the packet from its headers on, which AF_UNIX does not have.
func TestUDP(t *testing.T) {
	in, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(in)
	if err := unix.Bind(in, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	to, err := unix.Getsockname(in)
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(to.(*unix.SockaddrInet4).Port)
	payload := slices.Repeat([]byte{7}, 200)
	link := make([]byte, 14)
	link[12] = 8 // IPv4
	ip := []byte{0x45, 0, 0, 228, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1}
	udp := binary.BigEndian.AppendUint16(nil, port)
	udp = binary.BigEndian.AppendUint16(udp, port)
	udp = append(udp, 0, 208, 0, 0)
	udp = append(udp, payload...)
	pkt := &bpf.Packet{Data: udp, Net: append(slices.Clone(ip), udp...), Proto: unix.ETH_P_IP, IfIndex: 1, HAType: unix.ARPHRD_LOOPBACK, PayOff: 8}
	pkt.Link = append(slices.Clone(link), pkt.Net...)
	for name, load := range map[string]op{
		"transport header":     {code: ld | h | abs, k: 4},
		"network header":       {code: ld | b | abs, k: 0xfff00000 + 9},
		"network, last":        {code: ld | b | abs, k: 0xfff00000 + 227},
		"network, beyond":      {code: ld | b | abs, k: 0xfff00000 + 228},
		"link header":          {code: ld | b | abs, k: 0xffe00000 + 12},
		"link, far":            {code: ld | b | abs, k: 0xffe00000 + 14 + 8},
		"indirect network":     {code: ld | b | ind, k: 0xfff00000 + 9},
		"header length":        {code: ldx | b | msh, k: 0xfff00000},
		"protocol":             {code: ld | w | abs, k: 0xfffff000},
		"packet type":          {code: ld | w | abs, k: 0xfffff004},
		"interface":            {code: ld | w | abs, k: 0xfffff008},
		"type of interface":    {code: ld | w | abs, k: 0xfffff01c},
		"length":               {code: ld | w | length},
		"transport, last":      {code: ld | w | abs, k: 204},
		"transport, beyond":    {code: ld | w | abs, k: 205},
		"below the headers":    {code: ld | b | abs, k: 0xffd00000},
		"payload offset":       {code: ld | w | abs, k: 0xfffff034},
		"network as ancillary": {code: ld | b | ind, k: 0xfffff000},
	} {
		t.Run(name, func(t *testing.T) {
			// What is kept tells the low byte of what was loaded.
			ops := []op{load}
			if load.code&7 == ldx {
				ops = append(ops, op{code: txa})
			}
			ops = append(ops, op{code: alu | unix.BPF_AND, k: 0x7f}, op{code: alu | unix.BPF_ADD, k: 8}, op{code: retA})
			raw := program(ops...)
			if err := attach(in, raw); err != nil {
				t.Fatal(err)
			}
			prog, err := bpf.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Sendto(in, payload, 0, to); err != nil {
				t.Fatal(err)
			}
			want, _, err := unix.Recvfrom(in, make([]byte, 300), 0)
			if err == unix.EAGAIN {
				want = -8
			} else if err != nil {
				t.Fatal(err)
			}
			if got := int(prog.Run(pkt)) - 8; got != want {
				t.Errorf("kernel keeps %d bytes of the payload, Run %d", want, got)
			}
		})
	}
}

// TestRandom runs random programs, most of which are valid.
func TestRandom(t *testing.T) {
	p := newPair(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	ran := 0
	for range 20000 {
		n := 1 + rng.IntN(12)
		ops := make([]op, n)
		for i := range ops {
			ops[i] = randomOp(rng, n-i-1)
		}
		ops[n-1] = op{code: []uint16{retA, ret}[rng.IntN(2)], k: uint32(rng.IntN(40))}
		raw := program(ops...)
		if _, err := bpf.Parse(raw); err == nil {
			ran++
		}
		data := make([]byte, 1+rng.IntN(30))
		for i := range data {
			data[i] = byte(rng.IntN(70))
		}
		same(t, p, raw, data)
		if t.Failed() {
			t.Fatalf("%+v", ops)
		}
	}
	if ran < 5000 {
		t.Errorf("only %d programs were valid", ran)
	}
}

var codes = []uint16{
	ld | w | abs, ld | h | abs, ld | b | abs, ld | w | ind, ld | h | ind, ld | b | ind, ld | w | length, ld | imm, ld | mem,
	ldx | w | imm, ldx | w | length, ldx | mem, ldx | b | msh, st, stx, tax, txa,
	alu | unix.BPF_ADD, alu | unix.BPF_SUB | x, alu | unix.BPF_MUL, alu | unix.BPF_DIV, alu | unix.BPF_DIV | x, alu | 0x90, alu | 0x90 | x,
	alu | unix.BPF_AND, alu | unix.BPF_OR | x, alu | 0xa0 | x, alu | unix.BPF_LSH, alu | unix.BPF_RSH | x, alu | unix.BPF_NEG,
	jmp | unix.BPF_JA, jmp | unix.BPF_JEQ, jmp | unix.BPF_JGT | x, jmp | unix.BPF_JGE, jmp | unix.BPF_JSET | x,
}

func randomOp(rng *rand.Rand, rest int) op {
	o := op{code: codes[rng.IntN(len(codes))], k: uint32(rng.IntN(20))}
	switch {
	case rng.IntN(200) == 0:
		o.code = uint16(rng.Uint32())
	case rng.IntN(30) == 0 && o.code&7 != ld:
		o.k = rng.Uint32()
	}
	if o.code&7 == jmp {
		o.jt, o.jf = uint8(rng.IntN(rest+1)), uint8(rng.IntN(rest+1))
		if o.code == jmp|unix.BPF_JA {
			o.k = uint32(rng.IntN(rest + 1))
		}
	}
	return o
}

// FuzzParse: no bytes make Parse panic, and no program that it took makes Run.
func FuzzParse(f *testing.F) {
	f.Add(program(op{code: ld | b | abs, k: 9}, op{code: jmp | unix.BPF_JEQ, k: 6, jf: 1}, op{code: ret, k: 4}, op{code: ret}), []byte("0123456789"))
	f.Add(program(op{code: ldx | b | msh}, op{code: ld | h | ind, k: 2}, op{code: retA}), []byte{0x45, 0, 0, 0})
	f.Add(program(op{code: st, k: 3}, op{code: ld | mem, k: 3}, op{code: retA}), []byte{1})
	f.Fuzz(func(t *testing.T, raw, data []byte) {
		prog, err := bpf.Parse(raw)
		if err != nil {
			return
		}
		prog.Run(&bpf.Packet{Data: data, Net: data, Link: data})
	})
}
