// SPDX-License-Identifier: Apache-2.0

// What -p says, and what cannot be.

package view

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParsePublish(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"8080", "8080:8080/tcp"},
		{"8080:80", "8080:80/tcp"},
		{"8080:80/tcp", "8080:80/tcp"},
		{"53/udp", "53:53/udp"},
		{"5353:53/udp", "5353:53/udp"},
		{"127.0.0.1:8080", "127.0.0.1:8080:8080/tcp"},
		{"127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"},
		{"[::1]:8080:80/udp", "[::1]:8080:80/udp"},
		{"[2001:db8::1]:443", "[2001:db8::1]:443:443/tcp"},
		{"0.0.0.0:1:2", "0.0.0.0:1:2/tcp"},
	} {
		p, err := ParsePublish(tc.in)
		if err != nil || p.String() != tc.want {
			t.Errorf("%s: %s, %v; want %s", tc.in, p, err, tc.want)
		}
		if again, err := ParsePublish(p.String()); err == nil && again != p {
			t.Errorf("%s is read as %s", p, again)
		}
	}
	for _, in := range []string{"", "0", "65536", "80:0", "a", "-1", "8080:80:81", "1.2.3:80", "::1:80", "[::1]80", "[::1]:", "[127.0.0.1]:80",
		"[::ffff:127.0.0.1]:80", "80/sctp", "80/", "/udp", "80/udp/tcp", "host:80", "[fe80::1:80"} {
		p, err := ParsePublish(in)
		var bad *Problem
		if !errors.As(err, &bad) || bad.Code != ExitConfig || !strings.HasPrefix(bad.What, "-p "+in) {
			t.Errorf("%q is read as %s, %v", in, p, err)
		}
	}
}

// A onePublisher fails with err for addresses of one family, or of both.
type onePublisher struct {
	v4, v6 error
	open   int
}

func (o *onePublisher) Close() error { o.open--; return nil }

func (o *onePublisher) publish(_ string, host netip.AddrPort, _ uint16) (io.Closer, error) {
	err := o.v4
	if host.Addr().Is6() {
		err = o.v6
	}
	if err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	o.open++
	return o, nil
}

func TestPublishProblems(t *testing.T) {
	for _, tc := range []struct {
		v4, v6    error
		what, try string
	}{
		{nil, nil, "", ""},
		{nil, unix.EAFNOSUPPORT, "", ""},
		{unix.EADDRNOTAVAIL, nil, "", ""},
		{unix.EAFNOSUPPORT, unix.EAFNOSUPPORT, "no addresses of that family", ""},
		{unix.EADDRINUSE, nil, "port 80/tcp of the host is in use", "-p 8080:81"},
		{nil, unix.EADDRINUSE, "port 80/tcp of the host is in use", "-p 8080:81"},
		{unix.EACCES, unix.EACCES, "port 80 of the host is for privileged programs", "ip_unprivileged_port_start=80"},
	} {
		o := &onePublisher{v4: tc.v4, v6: tc.v6}
		c, err := Publish{HostPort: 80, Port: 81}.open(o)
		if tc.what == "" {
			if err != nil {
				t.Errorf("%v, %v: %v", tc.v4, tc.v6, err)
				continue
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		} else if p := (*Problem)(nil); !errors.As(err, &p) || !strings.Contains(p.What, tc.what) || !strings.Contains(strings.Join(p.Try, " "), tc.try) {
			t.Errorf("%v, %v: %+v", tc.v4, tc.v6, p)
		}
		if o.open != 0 {
			t.Errorf("%v, %v: %d ports stay open", tc.v4, tc.v6, o.open)
		}
	}
}
