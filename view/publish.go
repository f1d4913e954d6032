// SPDX-License-Identifier: Apache-2.0

// Ports of the view on the host.

package view

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Publish is a port of the view on the host, as --publish names it.
type Publish struct {
	Host     netip.Addr // zero: every address of the host
	HostPort uint16
	Port     uint16 // of the view
	UDP      bool
}

// ParsePublish reads [HOSTADDR:]HOSTPORT[:PORT][/tcp|/udp]. An IPv6 HOSTADDR is in
// brackets.
func ParsePublish(s string) (Publish, error) {
	bad := func(why string, a ...any) (Publish, error) {
		return Publish{}, &Problem{
			Code: ExitConfig,
			What: fmt.Sprintf("-p %s: %s", s, fmt.Sprintf(why, a...)),
			Try:  []string{"-p 8080:80", "-p 127.0.0.1:8080:80", "-p [::1]:5353:53/udp"},
		}
	}
	var p Publish
	rest, proto, _ := strings.Cut(s, "/")
	switch proto {
	case "udp":
		p.UDP = true
	case "tcp":
	default:
		if strings.Contains(s, "/") {
			return bad("%q is neither tcp nor udp", proto)
		}
	}
	if in, after, ok := strings.Cut(rest, "]:"); ok && strings.HasPrefix(in, "[") {
		a, err := netip.ParseAddr(in[1:])
		if err != nil || !a.Is6() || a.Is4In6() {
			return bad("%q is no IPv6 address", in[1:])
		}
		p.Host, rest = a, after
	} else if first, after, ok := strings.Cut(rest, ":"); ok && strings.Contains(first, ".") {
		a, err := netip.ParseAddr(first)
		if err != nil {
			return bad("%q is no address of the host", first)
		}
		p.Host, rest = a, after
	}
	ports := strings.Split(rest, ":")
	if len(ports) > 2 {
		return bad("an IPv6 address stands in brackets, and there are two ports at most")
	}
	var n [2]uint16
	for i, t := range ports {
		v, err := strconv.ParseUint(t, 10, 16)
		if err != nil || v == 0 {
			return bad("%q is no port", t)
		}
		n[i] = uint16(v)
	}
	p.HostPort, p.Port = n[0], n[0]
	if len(ports) == 2 {
		p.Port = n[1]
	}
	return p, nil
}

func (p Publish) proto() string {
	if p.UDP {
		return "udp"
	}
	return "tcp"
}

// String writes p as it is read.
func (p Publish) String() string {
	s := fmt.Sprintf("%d:%d/%s", p.HostPort, p.Port, p.proto())
	if p.Host.IsValid() {
		return netip.AddrPortFrom(p.Host, p.HostPort).String() + fmt.Sprintf(":%d/%s", p.Port, p.proto())
	}
	return s
}

// A publisher leads a port of the host at an address to a port of the view.
type publisher interface {
	publish(proto string, host netip.AddrPort, port uint16) (io.Closer, error)
}

// closers are closed together.
type closers []io.Closer

func (c closers) Close() error {
	var errs []error
	for _, x := range c {
		errs = append(errs, x.Close())
	}
	return errors.Join(errs...)
}

// open publishes p by way of a network's publisher: at the address that it names, or at
// all of both families that the host has.
func (p Publish) open(by publisher) (io.Closer, error) {
	hosts := []netip.Addr{p.Host}
	if !p.Host.IsValid() {
		hosts = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	var all closers
	var missing error
	for _, h := range hosts {
		c, err := by.publish(p.proto(), netip.AddrPortFrom(h, p.HostPort), p.Port)
		switch {
		case err == nil:
			all = append(all, c)
		case len(hosts) > 1 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)):
			missing = err // the host has one family only
		default:
			return nil, errors.Join(p.problem(err), all.Close())
		}
	}
	if len(all) == 0 {
		return nil, p.problem(missing)
	}
	return all, nil
}

// planPublish checks what is to be published. The first network is where ports are
// published from.
func (p *Plan) planPublish() error {
	if len(p.conf.Publish) == 0 && !p.conf.PublishAll {
		return nil
	}
	for _, x := range p.conf.Publish {
		p.Publish = append(p.Publish, x.String())
	}
	p.PublishAll = p.conf.PublishAll
	n := p.conf.Networks[0]
	switch {
	case n.Kind == Host:
		return badConfig("-n %s: there is nothing to publish, the program's ports are the host's own", n.Spec)
	case p.conf.PublishAll && p.Networks[0].Stack == "kernel":
		return &Problem{
			Code: ExitConfig,
			What: fmt.Sprintf("-n %s: --publish-all sees what the program does by umrun's own stack, and this is the kernel's", n.Spec),
			Try:  []string{"-p HOSTPORT:PORT", "stack=netstack"},
		}
	}
	return nil
}

// publish opens the ports that are asked for, by the first network.
func (v *View) publish(o *opened) error {
	by := o.publisher
	if by == nil {
		by = relayPublisher{st: o.stack, log: v.plan.conf.Log}
	}
	for _, p := range v.plan.conf.Publish {
		c, err := p.open(by)
		if err != nil {
			return err
		}
		v.ports = append(v.ports, c)
	}
	if v.all != nil {
		v.all.start(by)
	}
	return nil
}

// unprivileged is the file that says from which port on an ordinary user may listen.
const unprivileged = "/proc/sys/net/ipv4/ip_unprivileged_port_start"

// problem words why p cannot be published.
func (p Publish) problem(err error) error {
	f := &Problem{Code: ExitFailed, What: fmt.Sprintf("-p %s: %v", p, err), Err: err}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		f.What = fmt.Sprintf("-p %s: port %d/%s of the host is in use", p, p.HostPort, p.proto())
		f.Try = []string{fmt.Sprintf("-p %d:%d", otherPort(p.HostPort), p.Port), fmt.Sprintf("ss -ln%cp sport = :%d", p.proto()[0], p.HostPort)}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		first := "1024"
		if b, err := os.ReadFile(unprivileged); err == nil {
			first = strings.TrimSpace(string(b))
		}
		f.What = fmt.Sprintf("-p %s: port %d of the host is for privileged programs", p, p.HostPort)
		f.Why = fmt.Sprintf("An ordinary user may listen from port %s on.", first)
		f.Try = []string{
			fmt.Sprintf("-p %d:%d", otherPort(p.HostPort), p.Port),
			fmt.Sprintf("sudo sysctl net.ipv4.ip_unprivileged_port_start=%d", p.HostPort),
		}
	case errors.Is(err, unix.EADDRNOTAVAIL):
		f.What = fmt.Sprintf("-p %s: %s is no address of this host", p, p.Host)
		f.Try = []string{"ip addr"}
	case errors.Is(err, unix.EAFNOSUPPORT):
		f.What = fmt.Sprintf("-p %s: this host has no addresses of that family", p)
	}
	return f
}

// otherPort is a port that is likely to be free in the place of another.
func otherPort(p uint16) uint16 {
	if p < 1024 {
		return p + 8000
	}
	return p%50000 + 10000
}
