// SPDX-License-Identifier: Apache-2.0

// The protocol of vde_switch: how a plug asks for a port.

package vde

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// A plug connects to DIR/ctl, a stream socket, and writes one request; the switch
// answers with the address of a datagram socket, and from then on a datagram is a
// frame. Numbers are in the machine's own order, structures are packed
// (src/vde_switch/datasock.c, request_v1 and request_v3).
const (
	magic       = 0xfeedface
	maxRequest  = 256 // bytes: the switch reads once, as much
	sockaddrLen = 2 + 108
	headerV3    = 4 + 4 + 4 + sockaddrLen   // magic, version, type, address
	headerV1    = 4 + 4 + 6 + sockaddrLen   // magic, type, MAC, address
	maxDescr    = maxRequest - headerV3 - 1 // bytes of a description
	reqControl  = 0                         // REQ_NEW_CONTROL
	reqPort0    = 1                         // REQ_NEW_PORT0: the management's port
	maxPort     = 1<<23 - 1                 // the type is an int, its low byte taken
)

var native = binary.NativeEndian

// A request asks for a port.
type request struct {
	typ   uint32 // reqControl or reqPort0
	port  int    // 0: any
	path  string // absolute, of the plug's datagram socket
	descr string
}

var errRequest = errors.New("not a request of VDE")

// encode writes r as version 3. The path must fit, see sockaddr.
func (r *request) encode() ([]byte, error) {
	sa, err := sockaddr(r.path)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, maxRequest)
	b = native.AppendUint32(b, magic)
	b = native.AppendUint32(b, 3)
	b = native.AppendUint32(b, r.typ|uint32(r.port)<<8)
	b = append(b, sa[:]...)
	// Not terminated: the switch does that, and what comes behind a zero is lost.
	d := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, r.descr)
	return append(b, d[:min(len(d), maxDescr)]...), nil
}

// decodeRequest reads a request, of version 3 or the old version 1, as a switch
// reads it: from one read of at most maxRequest bytes.
func decodeRequest(b []byte) (*request, error) {
	if len(b) < 8 || native.Uint32(b) != magic {
		return nil, errRequest
	}
	r := &request{}
	var sa, descr []byte
	switch version := native.Uint32(b[4:]); {
	case version == 3 && len(b) >= headerV3:
		r.typ, sa, descr = native.Uint32(b[8:]), b[12:headerV3], b[headerV3:]
	case version == 3:
		return nil, fmt.Errorf("%w: %d bytes of %d", errRequest, len(b), headerV3)
	case version > 1:
		return nil, fmt.Errorf("%w: version %d", errRequest, version)
	case len(b) >= headerV1: // there is no version in version 1: it is the type
		r.typ, sa, descr = version, b[14:headerV1], b[headerV1:]
	default:
		return nil, fmt.Errorf("%w: %d bytes of %d", errRequest, len(b), headerV1)
	}
	r.typ, r.port = r.typ&0xff, int(r.typ>>8)
	if r.typ != reqControl && r.typ != reqPort0 {
		return nil, fmt.Errorf("%w: type %d", errRequest, r.typ)
	}
	var err error
	if r.path, err = sockaddrPath(sa); err != nil {
		return nil, err
	}
	descr, _, _ = bytes.Cut(descr, []byte{0})
	r.descr = string(descr)
	return r, nil
}

// sockaddr encodes the address of a socket, struct sockaddr_un.
func sockaddr(path string) (sa [sockaddrLen]byte, err error) {
	if len(path) == 0 || len(path) > sockaddrLen-2-1 || strings.IndexByte(path, 0) >= 0 {
		return sa, fmt.Errorf("%s: the path of a socket has 1 to 107 bytes: %w", path, unix.ENAMETOOLONG)
	}
	native.PutUint16(sa[:], unix.AF_UNIX)
	copy(sa[2:], path)
	return sa, nil
}

// sockaddrPath decodes what sockaddr encodes. Sockets without a path in the file
// system are refused: there is no telling whose they are.
func sockaddrPath(sa []byte) (string, error) {
	if len(sa) != sockaddrLen || native.Uint16(sa) != unix.AF_UNIX {
		return "", fmt.Errorf("%w: no address of a socket", errRequest)
	}
	path, _, _ := bytes.Cut(sa[2:], []byte{0})
	if len(path) == 0 || path[0] != '/' || len(path) == sockaddrLen-2 {
		return "", fmt.Errorf("%w: the socket has no absolute path that ends", errRequest)
	}
	return string(path), nil
}
