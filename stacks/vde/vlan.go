// SPDX-License-Identifier: Apache-2.0

// The plug that tags, vlan://.

package vde

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"umrun/stacks"
)

// A vlan is a plug in one VLAN, or several, of the network in its braces, as vdeplug's:
// what the stack sends without a tag has the tag N on the wire, and the reverse. Other
// tags, if any are wanted, pass as they are or with another number.
type vlan struct {
	stacks.Link
	tags
	frames sync.Pool // of *tagged
}

// tags says what becomes of which tag.
type tags struct {
	n     uint16            // of the stack's frames without one; 0: they have none on the wire either
	untag uint16            // the stack sees frames without a tag with this one; 0: only if n is
	out   map[uint16]uint16 // the stack's tag to the wire's
	in    map[uint16]uint16
	trunk bool   // all others pass as they are
	typ   uint16 // EtherType of tags
}

func checkVLAN(u *URL) error {
	_, err := parseTags(u)
	return err
}

// parseTags reads vlan://N[untag=M/tag=A:B-C/trunk/qinq].
func parseTags(u *URL) (t tags, err error) {
	t = tags{typ: typeVLAN, out: map[uint16]uint16{}, in: map[uint16]uint16{}}
	if u.Arg != "" {
		if t.n, err = tagNumber(u.Arg, true); err != nil {
			return t, err
		}
	}
	if v, ok := u.opt("u", "untag"); ok {
		if t.untag, err = tagNumber(v, false); err != nil {
			return t, err
		}
	}
	if v, ok := u.opt("t", "tag"); ok {
		for _, w := range strings.FieldsFunc(v, func(r rune) bool { return r == ':' || r == '.' }) {
			a, b, two := strings.Cut(w, "-")
			if !two {
				b = a
			}
			in, err := tagNumber(a, false)
			if err != nil {
				return t, err
			}
			out, err := tagNumber(b, false)
			if err != nil {
				return t, err
			}
			_, twice := t.out[in]
			if _, also := t.in[out]; twice || also || in == t.untag || out == t.n {
				return t, fmt.Errorf("tag=%s: a VLAN of it has a meaning already", w)
			}
			t.out[in], t.in[out] = out, in
		}
	}
	_, t.trunk = u.opt("x", "trunk")
	if _, ok := u.opt("q", "qinq", "ad"); ok {
		t.typ = typeQinQ
	}
	if t.n == 0 && t.untag == 0 && len(t.out) == 0 && !t.trunk {
		return t, fmt.Errorf("there is no VLAN")
	}
	return t, nil
}

// tagNumber reads the number of a VLAN: 1 to 4094, with zero also 0, which is none.
func tagNumber(s string, zero bool) (uint16, error) {
	n, err := strconv.ParseUint(s, 0, 12)
	if err != nil || n == 0 && !zero || n == 4095 {
		return 0, fmt.Errorf("%q is no VLAN: they are 1 to 4094", s)
	}
	return uint16(n), nil
}

func openVLAN(ctx context.Context, u *URL, o Options) (stacks.Link, error) {
	t, err := parseTags(u)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	inner := o
	inner.plain = true
	l, err := open(ctx, u.Nested, inner)
	if err != nil {
		return nil, err
	}
	v := &vlan{Link: withoutOffload(l), tags: t}
	v.frames.New = func() any { return new(tagged) }
	return v, nil
}

// tagged is memory for frames that get a tag.
type tagged struct {
	mem [batchSize][]byte
	out [][]byte
}

// tagOf returns a frame's tag of our kind.
func (t *tags) tagOf(f []byte) (uint16, bool) {
	if len(f) < etherLen+tagLen || binary.BigEndian.Uint16(f[12:]) != t.typ {
		return 0, false
	}
	return binary.BigEndian.Uint16(f[14:]) & 0xfff, true
}

// Write implements [stacks.Link].
func (v *vlan) Write(bufs [][]byte) (int, error) {
	t := v.frames.Get().(*tagged)
	defer v.frames.Put(t)
	for at := 0; at < len(bufs); at += batchSize {
		t.out = t.out[:0]
		for i, f := range bufs[at:min(at+batchSize, len(bufs))] {
			if f, ok := v.outbound(f, &t.mem[i]); ok {
				t.out = append(t.out, f)
			}
		}
		if len(t.out) == 0 {
			continue
		}
		if _, err := v.Link.Write(t.out); err != nil {
			return at, err
		}
	}
	return len(bufs), nil
}

// outbound makes the wire's frame of the stack's, in mem if it changes.
func (t *tags) outbound(f []byte, mem *[]byte) ([]byte, bool) {
	if len(f) < etherLen {
		return nil, false
	}
	tag, ok := t.tagOf(f)
	switch {
	case !ok && t.n != 0:
		b := append((*mem)[:0], f[:12]...)
		b = binary.BigEndian.AppendUint16(b, t.typ)
		b = binary.BigEndian.AppendUint16(b, t.n)
		*mem = append(b, f[12:]...)
		return *mem, true
	case !ok:
		return f, t.untag == 0
	case tag == t.untag && tag != 0:
		*mem = append(append((*mem)[:0], f[:12]...), f[12+tagLen:]...)
		return *mem, true
	}
	to, ok := t.translate(t.out, tag)
	if !ok || to == tag {
		return f, ok
	}
	*mem = append((*mem)[:0], f...)
	setTag(*mem, to)
	return *mem, true
}

// inbound makes the stack's frame of the wire's, in its own buffer.
func (t *tags) inbound(f []byte) ([]byte, bool) {
	tag, ok := t.tagOf(f)
	switch {
	case !ok && t.untag != 0:
		if cap(f) < len(f)+tagLen {
			return nil, false
		}
		n := len(f)
		f = f[:n+tagLen]
		copy(f[12+tagLen:], f[12:n])
		binary.BigEndian.PutUint16(f[12:], t.typ)
		binary.BigEndian.PutUint16(f[14:], t.untag)
		return f, true
	case !ok:
		return f, t.n == 0
	case tag == t.n && tag != 0:
		copy(f[12:], f[12+tagLen:])
		return f[:len(f)-tagLen], true
	}
	to, ok := t.translate(t.in, tag)
	if ok && to != tag {
		setTag(f, to)
	}
	return f, ok
}

func (t *tags) translate(m map[uint16]uint16, tag uint16) (uint16, bool) {
	if to, ok := m[tag]; ok {
		return to, true
	}
	return tag, t.trunk && tag > 1 && tag < 4095
}

// setTag writes a tag's number and keeps its priority.
func setTag(f []byte, tag uint16) {
	binary.BigEndian.PutUint16(f[14:], binary.BigEndian.Uint16(f[14:])&0xf000|tag)
}

// Read implements [stacks.Link].
func (v *vlan) Read(bufs [][]byte, sizes []int) (int, error) {
	for {
		got, err := v.Link.Read(bufs, sizes)
		if err != nil {
			return 0, err
		}
		n := 0
		for i := range got {
			f, ok := v.inbound(bufs[i][:sizes[i]:len(bufs[i])])
			if !ok {
				continue
			}
			if n < i {
				copy(bufs[n], f)
			}
			sizes[n] = len(f)
			n++
		}
		if n > 0 {
			return n, nil
		}
	}
}
