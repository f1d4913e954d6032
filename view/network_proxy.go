// SPDX-License-Identifier: Apache-2.0

// Proxies as networks: SOCKS5, HTTP CONNECT, SSH.

package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"umrun/netmod/dns"
	"umrun/stacks"
	"umrun/stacks/nat"
	"umrun/stacks/proxy"
)

// proxyNetwork is what lies behind a proxy. Its stack is that of the NAT, whose far
// end goes through the proxy in place of the host's sockets.
type proxyNetwork struct {
	Network
	conf     proxy.Config
	auth     string // the file of auth=
	mtu      int
	warnings []string
}

var proxyKinds = map[Kind]proxy.Kind{SOCKS5: proxy.SOCKS5, HTTP: proxy.HTTP, SSH: proxy.SSH}

func newProxy(n Network) (*proxyNetwork, error) {
	t := &proxyNetwork{Network: n, mtu: n.number("mtu")}
	if t.mtu != 0 && t.mtu < minMTU6 {
		return nil, badConfig("-n %s: mtu=%d: IPv6 needs %d at least", n.Spec, t.mtu, minMTU6)
	}
	t.conf = proxy.Config{Kind: proxyKinds[n.Kind]}
	if err := t.parseTarget(); err != nil {
		return nil, badConfig("-n %s: %w", n.Spec, err)
	}
	if file, ok := n.value("auth"); ok {
		name, pw, open, err := proxy.ReadAuth(file, t.conf.User)
		if err != nil {
			return nil, badConfig("auth=%s: %w", file, bare(err))
		}
		if open {
			t.warnings = append(t.warnings, fmt.Sprintf("%s: other users may read or change this file (chmod 600 %s)", file, file))
		}
		t.auth, t.conf.User, t.conf.Password = file, name, pw
	}
	if n.Kind == SSH {
		if err := t.readSSH(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// partNames gives the proxies of a view their parts of the addresses that stand for
// names: those lead to the proxy that is to resolve the name.
func partNames(nets []network) error {
	var all []*proxyNetwork
	for _, n := range nets {
		if t, ok := n.(*proxyNetwork); ok {
			all = append(all, t)
		}
	}
	if len(all) > proxy.MaxParts {
		return badConfig("-n %s: a view has %d proxies at most", all[proxy.MaxParts].Spec, proxy.MaxParts)
	}
	for i, names := range proxy.NewNames(max(len(all), 1)) {
		if i < len(all) {
			all[i].conf.Names = names
		}
	}
	return nil
}

// parseTarget reads [USER@]HOST:PORT; the port may be left out with ssh.
func (t *proxyNetwork) parseTarget() error {
	raw := string(t.Kind) + "://" + t.Target
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("write it as %s", targetForm(t.Kind))
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" {
		return fmt.Errorf("write it as %s", targetForm(t.Kind))
	}
	t.conf.Host, t.conf.User = u.Hostname(), u.User.Username()
	switch port := u.Port(); {
	case port != "":
		p, err := strconv.ParseUint(port, 10, 16)
		if err != nil || p == 0 {
			return fmt.Errorf("%s is no port", port)
		}
		t.conf.Port = uint16(p)
	case t.Kind != SSH:
		return fmt.Errorf("the port is missing: write it as %s", targetForm(t.Kind))
	}
	return nil
}

// readSSH reads what OpenSSH's files say of the server.
func (t *proxyNetwork) readSSH() error {
	// As ssh(1) does; containers have users without an account.
	home, name := os.Getenv("HOME"), os.Getenv("USER")
	if me, err := user.Current(); err == nil {
		home, name = me.HomeDir, me.Username
	}
	err := proxy.ReadSSHConfig(&t.conf, home, name, os.Getenv, filepath.Join(home, ".ssh", "config"), "/etc/ssh/ssh_config")
	if err == nil && t.conf.User == "" {
		err = fmt.Errorf("this user has no name: write ssh:USER@%s", t.Target)
	}
	if err != nil {
		return badConfig("-n %s: %w", t.Spec, bare(err))
	}
	return nil
}

// at is where the proxy is, without credentials.
func (t *proxyNetwork) at() string {
	return net.JoinHostPort(t.conf.Host, strconv.Itoa(int(t.conf.Port)))
}

func (t *proxyNetwork) describe() (PlanNetwork, []string) {
	d := PlanNetwork{
		MTU:       nat.DefaultMTU,
		Addresses: natAddresses(),
		Routes:    natRoutes(),
		Proxy:     t.at(),
		AuthFile:  t.auth,
	}
	if t.mtu != 0 {
		d.MTU = t.mtu
	}
	for _, p := range t.conf.Names.Ranges() {
		d.Routes = append(d.Routes, PlanRoute{Dst: p.String()})
	}
	return d, t.warnings
}

func (t *proxyNetwork) dns() stacks.DNS           { return stacks.DNS{} }
func (t *proxyNetwork) names() dns.Names          { return t.conf.Names }
func (t *proxyNetwork) reaches(a netip.Addr) bool { return a.Unmap().IsGlobalUnicast() }

func (t *proxyNetwork) open(ctx context.Context, log *slog.Logger) (opened, error) {
	c := t.conf
	c.Log = log
	up, err := proxy.Open(c)
	if err != nil {
		return opened{}, badConfig("-n %s: %w", t.Spec, bare(err))
	}
	link, err := nat.Open(ctx, nat.Options{Upstream: up, MTU: t.mtu, Log: log})
	if err != nil {
		return opened{}, errors.Join(err, up.Close())
	}
	lc := link.Config()
	return opened{
		links: []stacks.LinkConfig{{
			Name:   t.ifName(),
			Link:   link,
			Addrs:  lc.Addrs,
			Routes: lc.Routes,
		}},
		publisher: natPublisher{link},
		wait:      up.WaitUp,
		check:     func(ctx context.Context) []Finding { return t.check(ctx, up) },
	}, nil
}

// check finds out what the proxy can do.
func (t *proxyNetwork) check(ctx context.Context, up *proxy.Upstream) []Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	began := time.Now()
	if err := up.Probe(ctx); err != nil {
		return []Finding{{Name: "proxy", Verdict: Fail, Text: err.Error()}}
	}
	all := []Finding{{Name: "proxy", Verdict: OK, Text: fmt.Sprintf("the %s is there and takes us, in %s", up, millis(time.Since(began)))}}
	udp := Finding{Name: "udp", Verdict: OK, Text: "the proxy carries datagrams"}
	if err := up.ProbePackets(ctx); err != nil {
		udp.Verdict, udp.Text = Note, err.Error()
	}
	return append(all, udp)
}

// unusable words why a proxy cannot be used.
func (n Network) unusable(e *proxy.UnusableError) *Problem {
	p := &Problem{Code: ExitNetwork, What: e.Error(), Why: e.Hint, Err: e}
	auth := "-n " + n.keyless() + ",auth=FILE   (user name and password on a line each, mode 0600)"
	switch e.Cause {
	case proxy.Unresolved:
		p.Why = "The proxy's name is asked of this machine's own resolver, outside of the view."
		p.Try = []string{"an address in place of the name"}
	case proxy.Silent:
		p.Why = "Is it running, and reached from this machine?"
		p.Try = []string{"umrun check " + n.Spec, "--no-wait"}
	case proxy.Broken:
		p.Why = "Something listens there that is no " + string(n.Kind) + " proxy, or one that does not like who asks."
	case proxy.WantsAuth:
		p.Try = []string{auth}
	case proxy.BadAuth:
		if n.Kind == SSH {
			p.Try = []string{"ssh-add"}
		}
		p.Try = append(p.Try, auth)
	}
	return p
}

// keyless is the SPEC up to its keys.
func (n Network) keyless() string {
	n.Keys = nil
	if s := n.String(); n.Name == string(n.Kind) {
		return strings.TrimPrefix(s, n.Name+"=")
	} else {
		return s
	}
}

// bare takes the operation and the file name off an error, for where they stand
// already.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", pe.Path, pe.Err)
	}
	return err
}

// proxyRE finds what a SPEC of a proxy begins with.
var proxyRE = regexp.MustCompile(`^([A-Za-z0-9_-]+=)?(socks5h?|https?|ssh):(//)?`)

// hasPassword reports whether there is a password in the SPEC of a proxy. It may have commas in it,
// and look like keys then: of those only the names of files have an @.
func hasPassword(spec string) bool {
	begin := proxyRE.FindString(spec)
	if begin == "" {
		return false
	}
	head, rest, _ := strings.Cut(spec[len(begin):], ",")
	if user, _, ok := strings.Cut(head, "@"); ok {
		return strings.Contains(user, ":")
	}
	i := strings.LastIndexByte(head, ':')
	if i < 0 || !strings.Contains(rest, "@") {
		return false
	}
	if _, err := strconv.ParseUint(head[i+1:], 10, 16); err != nil && !strings.HasSuffix(head, "]") {
		return true // it is no port
	}
	for word := range strings.SplitSeq(rest, ",") {
		if key, _, _ := strings.Cut(word, "="); strings.Contains(word, "@") && key != "auth" && key != "pcap" {
			return true
		}
	}
	return false
}

// refusePassword keeps passwords off the command line, where every user of the
// machine sees them. The error does not repeat it.
func refusePassword(spec string) error {
	if hasPassword(spec) {
		return badConfig("-n: a password on the command line is seen by everybody: write it to a file (mode 0600) and say auth=FILE")
	}
	return nil
}
