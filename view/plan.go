// SPDX-License-Identifier: Apache-2.0

// Plan: a checked Config, with every file read and nothing done yet.

package view

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"umrun/netmod/dns"
)

// A Plan is what a view will be. Its JSON form is what `umrun --dry-run` prints,
// and stable: fields are added, never renamed. Keys are not in it.
type Plan struct {
	Path     string        `json:"path"` // the executable
	Argv     []string      `json:"argv"`
	Dir      string        `json:"dir"`
	Networks []PlanNetwork `json:"networks"` // the first is the default
	DNS      PlanDNS       `json:"dns"`
	DBus     string        `json:"dbus"`    // none or host
	Backend  string        `json:"backend"` // notify
	Wait     float64       `json:"wait_seconds"`
	WaitAll  bool          `json:"wait_all"`
	Warnings []string      `json:"warnings"`

	conf   Config
	nets   []network
	stub   dns.Config
	listen []netip.AddrPort // where the stub answers
}

// A PlanNetwork describes a network that will be opened.
type PlanNetwork struct {
	Name         string      `json:"name"`
	Kind         Kind        `json:"kind"`
	File         string      `json:"file,omitempty"`
	Device       string      `json:"device,omitempty"` // of the host
	Stack        string      `json:"stack"`
	MTU          int         `json:"mtu,omitempty"` // bytes of the inner packet
	MAC          string      `json:"mac,omitempty"`
	Addresses    []string    `json:"addresses"`
	Routes       []PlanRoute `json:"routes"`
	Peers        []PlanPeer  `json:"peers,omitempty"`
	CC           string      `json:"cc,omitempty"`
	RcvBuf       int         `json:"rcvbuf_bytes,omitempty"`
	SndBuf       int         `json:"sndbuf_bytes,omitempty"`
	HostLoopback bool        `json:"host_loopback,omitempty"`

	Impairment *PlanImpairment `json:"impairment,omitempty"`
	Proxy      string          `json:"proxy,omitempty"`     // host:port
	AuthFile   string          `json:"auth_file,omitempty"` // who it is used as stands there
}

// A PlanRoute is a route; without Via it is on link.
type PlanRoute struct {
	Dst string `json:"dst"`
	Via string `json:"via,omitempty"`
}

// A PlanPeer is a WireGuard peer without its secrets.
type PlanPeer struct {
	PublicKey    string   `json:"public_key"`
	PresharedKey bool     `json:"preshared_key"` // there is one
	Endpoint     string   `json:"endpoint,omitempty"`
	AllowedIPs   []string `json:"allowed_ips"`
	Keepalive    float64  `json:"keepalive_seconds,omitempty"`
}

// PlanDNS says who answers names.
type PlanDNS struct {
	Mode    string   `json:"mode"`    // tunnel, proxy, none, or an address
	Servers []string `json:"servers"` // asked through the network
	Search  []string `json:"search"`
	Listen  []string `json:"listen"` // where the program asks
}

// resolvConf is what the program reads to learn whom to ask.
const resolvConf = "/etc/resolv.conf"

// MakePlan checks conf and reads what it names. Errors are Problems.
func MakePlan(conf Config) (*Plan, error) {
	if len(conf.Argv) == 0 {
		return nil, badConfig("there is no program to run")
	}
	p, err := planNetworks(conf)
	if err != nil {
		return nil, err
	}
	if conf.Env == nil {
		conf.Env = os.Environ()
	}
	if p.Path, err = lookPath(conf.Argv[0], searchPath(conf.Env), conf.Dir); err != nil {
		return nil, err
	}
	p.conf, p.Argv, p.Dir = conf, conf.Argv, conf.Dir
	if p.Dir == "" {
		if p.Dir, err = os.Getwd(); err != nil {
			return nil, fmt.Errorf("working directory: %w", err)
		}
	} else if p.Dir, err = filepath.Abs(p.Dir); err != nil {
		return nil, fmt.Errorf("working directory: %w", err)
	}
	return p, nil
}

// planNetworks makes the part of a plan that concerns the networks.
func planNetworks(conf Config) (*Plan, error) {
	switch conf.Backend {
	case "", "auto", "notify":
	case "ptrace":
		return nil, &Problem{Code: ExitMachine, What: "the ptrace backend is not built yet", Try: []string{"--backend auto", "umrun doctor"}}
	default:
		return nil, badConfig("unknown backend %q", conf.Backend)
	}
	p := &Plan{
		conf:     conf,
		DBus:     "none",
		Backend:  "notify",
		Wait:     conf.Wait.Seconds(),
		WaitAll:  conf.WaitAll,
		Warnings: []string{},
	}
	if conf.DBus {
		p.DBus = "host"
	}
	switch len(conf.Networks) {
	case 0:
		return nil, badConfig("there is no network")
	case 1:
	default:
		return nil, NotBuilt(fmt.Sprintf("-n %s: a second network in one view", conf.Networks[1].Spec))
	}
	for _, n := range conf.Networks {
		if err := n.supported(); err != nil {
			return nil, err
		}
		net, err := newNetwork(n)
		if err != nil {
			return nil, err
		}
		d, warnings := net.describe()
		d.Name, d.Kind, d.Stack = n.Name, n.Kind, "netstack"
		d.CC, _ = n.value("cc")
		d.RcvBuf, d.SndBuf = n.bytes("rcvbuf"), n.bytes("sndbuf")
		if d.Addresses == nil {
			d.Addresses = []string{}
		}
		d.Impairment = n.impairment()
		if d.Routes == nil {
			d.Routes = []PlanRoute{}
		}
		p.Networks = append(p.Networks, d)
		p.Warnings = append(p.Warnings, warnings...)
		p.nets = append(p.nets, net)
	}
	return p, p.planDNS()
}

// planDNS decides who answers names on the default network.
func (p *Plan) planDNS() error {
	mode := p.conf.DNS
	if mode == "" {
		mode = "tunnel"
	}
	n := p.conf.Networks[0]
	if n.Kind == None && mode == "tunnel" {
		mode = "none" // there is nobody to ask, and nobody expects it
	}
	var resolv dns.Resolv
	if f, err := os.Open(resolvConf); err == nil {
		resolv = dns.ParseResolvConf(f)
		f.Close()
	} else {
		resolv = dns.ParseResolvConf(strings.NewReader("")) // as resolv.conf(5): a missing file is an empty one
	}
	d := p.nets[0].dns()
	if s := n.servers(); len(s) > 0 {
		d.Servers = s
	}
	if s := n.values("domain"); len(s) > 0 {
		d.Search = s
	}
	var warnings []string
	var err error
	reaches := p.nets[0].reaches
	far, named := p.nets[0].(namer)
	if named && mode == "tunnel" {
		reaches = func(netip.Addr) bool { return false } // those of resolv.conf are not asked
	}
	p.stub, p.listen, warnings, err = dns.Plan(resolv, d, reaches, mode)
	if named {
		p.stub.Stream = true // not every proxy carries datagrams
		switch {
		case mode == "tunnel":
			mode, p.stub.Names, p.stub.Reason = "proxy", far.names(), ""
		case p.stub.HTTPS != "":
			p.stub.Bootstrap, p.stub.Reason = far.names(), ""
		}
	}
	if err != nil {
		return badConfig("%w", err)
	}
	p.Warnings = append(p.Warnings, warnings...)
	p.DNS = PlanDNS{Mode: mode, Servers: texts(p.stub.Servers), Search: append([]string{}, p.stub.Search...), Listen: texts(p.listen)}
	return nil
}

// texts writes things by their String method; never nil.
func texts[T fmt.Stringer](ts []T) []string {
	out := make([]string, 0, len(ts))
	for _, t := range ts {
		out = append(out, t.String())
	}
	return out
}
