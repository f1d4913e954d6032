// SPDX-License-Identifier: Apache-2.0

// Plan: a checked Config, with every file read and nothing done yet.

package view

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"umrun/netmod/dns"
	"umrun/stacks/route"
)

// A Plan is what a view will be. Its JSON form is what `umrun --dry-run` prints,
// and stable: fields are added, never renamed. Keys are not in it.
type Plan struct {
	Path       string        `json:"path"` // the executable
	Argv       []string      `json:"argv"`
	Dir        string        `json:"dir"`
	Networks   []PlanNetwork `json:"networks"`        // the first is the default
	Rules      []PlanRule    `json:"rules,omitempty"` // of --route, in the order given
	DNS        PlanDNS       `json:"dns"`
	Publish    []string      `json:"publish,omitempty"` // HOST:PORT of the view, as -p has it
	PublishAll bool          `json:"publish_all,omitempty"`
	DBus       string        `json:"dbus"`    // none or host
	Backend    string        `json:"backend"` // notify
	Wait       float64       `json:"wait_seconds"`
	WaitAll    bool          `json:"wait_all"`
	Files      *PlanFiles    `json:"files,omitempty"`   // nil: the host's
	Devices    []PlanMount   `json:"devices,omitempty"` // of --mount, which neither engine makes
	Warnings   []string      `json:"warnings"`

	conf   Config
	others []string // directories of others that a cow of an ordinary user is to be written to in
	nets   []network
	resolv dns.Resolv       // the machine's
	table  *route.Table     // of several networks, else nil
	stubs  []dns.Config     // who answers names, by network
	listen []netip.AddrPort // where the stub answers
	asked  *naming          // what names were asked for, with Config.Flows
}

// A PlanNetwork describes a network that will be opened.
type PlanNetwork struct {
	Name         string      `json:"name"`
	Kind         Kind        `json:"kind"`
	File         string      `json:"file,omitempty"`
	Device       string      `json:"device,omitempty"`  // of the host
	Command      string      `json:"command,omitempty"` // of a provider
	URL          string      `json:"url,omitempty"`     // of a VDE network
	Stack        string      `json:"stack"`
	MTU          int         `json:"mtu,omitempty"` // bytes of the inner packet
	MAC          string      `json:"mac,omitempty"`
	Configure    []string    `json:"configure,omitempty"` // what the network is asked for: dhcp, dhcp6, slaac, rd, auto
	FQDN         string      `json:"fqdn,omitempty"`
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
	Mode    string   `json:"mode"`    // tunnel, proxy, none, an address, or program: it asks without us
	Servers []string `json:"servers"` // asked through the network
	Search  []string `json:"search"`
	Listen  []string `json:"listen"` // where the program asks

	Networks []PlanZone `json:"networks,omitempty"` // but for the first
}

// A PlanZone says who is asked for the names of a network other than the first.
type PlanZone struct {
	Network string   `json:"network"`
	Mode    string   `json:"mode"`
	Servers []string `json:"servers"`
	Search  []string `json:"search"`
}

// tunnelDNS is the mode in which the network's own servers are asked.
const tunnelDNS = "tunnel"

// resolvConf is what the program reads to learn whom to ask.
const resolvConf = "/etc/resolv.conf"

// MakePlan checks conf and reads what it names. Errors are Problems.
func MakePlan(conf Config) (*Plan, error) {
	if len(conf.Argv) == 0 {
		return nil, badConfig("there is no program to run")
	}
	all := conf.Mounts
	conf.Mounts = slices.DeleteFunc(slices.Clone(all), isDevice)
	p, err := planNetworks(conf)
	if err != nil {
		return nil, err
	}
	if err := p.planDevices(all); err != nil {
		return nil, err
	}
	if conf.Env == nil {
		conf.Env = os.Environ()
	}
	if err := p.checkName(); err != nil {
		return nil, err
	}
	if p.Dir, err = filepath.Abs(conf.Dir); err != nil && (conf.Dir != "" || conf.wantsFiles()) {
		return nil, NoDir(err)
	} // else the program starts where the caller is, wherever that was
	if err := p.planFiles(); err != nil {
		return nil, err
	}
	if p.Path, err = lookPath(conf.Argv[0], searchPath(conf.Env), conf.Dir); err != nil {
		if p.Files == nil || conf.Argv[0] == "" {
			return nil, err
		}
		p.Path = conf.Argv[0] // it may be there in the view
	}
	p.conf, p.Argv = conf, conf.Argv
	return p, nil
}

// NoDir is the problem of a working directory that has no name any more.
func NoDir(err error) error {
	return &Problem{Code: ExitFailed, What: fmt.Sprintf("working directory: %v", err), Why: "With mounts the program has to find it in its view, by its name.", Try: []string{"cd /"}, Err: err}
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
		asked:    new(naming),
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
	if len(conf.Networks) == 0 {
		return nil, badConfig("there is no network")
	}
	for _, n := range conf.Networks {
		if err := n.supported(); err != nil {
			return nil, err
		}
		net, err := newNetwork(n)
		if err != nil {
			return nil, err
		}
		p.nets = append(p.nets, net)
	}
	if err := partNames(p.nets); err != nil {
		return nil, err
	}
	for i, n := range conf.Networks {
		d, warnings := p.nets[i].describe()
		d.Name, d.Kind, d.Stack = n.Name, n.Kind, p.stackName(n)
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
		if err := p.checkKernel(i); err != nil {
			return nil, err
		}
	}
	if err := p.planRules(); err != nil {
		return nil, err
	}
	if err := p.planPublish(); err != nil {
		return nil, err
	}
	return p, p.planDNS()
}

// planDNS decides who answers names: --dns is about the default network.
func (p *Plan) planDNS() error {
	if f, err := os.Open(resolvConf); err == nil {
		p.resolv = dns.ParseResolvConf(f)
		f.Close()
	} else {
		p.resolv = dns.ParseResolvConf(strings.NewReader("")) // as resolv.conf(5): a missing file is an empty one
	}
	for i, n := range p.conf.Networks {
		mode := ""
		if i == 0 {
			mode = p.conf.DNS
		}
		mode, stub, err := p.planStub(i, mode)
		if err != nil {
			return err
		}
		p.stubs = append(p.stubs, stub)
		if i == 0 {
			p.DNS = PlanDNS{Mode: mode, Servers: texts(stub.Servers), Search: append([]string{}, stub.Search...), Listen: texts(p.listen)}
			continue
		}
		p.DNS.Networks = append(p.DNS.Networks, PlanZone{Network: n.Name, Mode: mode, Servers: texts(stub.Servers), Search: append([]string{}, stub.Search...)})
	}
	return nil
}

// planStub decides who answers names on a network. It returns the mode that has become
// of mode.
func (p *Plan) planStub(i int, mode string) (string, dns.Config, error) {
	n := p.conf.Networks[i]
	if n.asksItself() {
		return p.planOwnStub(i, mode, p.resolv)
	}
	if mode == "" {
		mode = tunnelDNS
	}
	if n.Kind == None && mode == tunnelDNS {
		mode = "none" // there is nobody to ask, and nobody expects it
	}
	d := n.dnsKeys(p.nets[i].dns())
	reaches := p.nets[i].reaches
	far, named := p.nets[i].(namer)
	if named && mode == tunnelDNS {
		reaches = func(netip.Addr) bool { return false } // those of resolv.conf are not asked
	}
	stub, listen, warnings, err := dns.Plan(p.resolv, d, reaches, mode)
	if err != nil {
		return "", stub, badConfig("%w", err)
	}
	if p.learns(i) || n.Kind == TunProvider {
		warnings = nil // there are no routes yet; they come when it is told who is asked
		if mode == tunnelDNS && len(stub.Servers) == 0 {
			stub.Reason = "it has named no name server yet, and names do not resolve until it has"
			if i == 0 {
				stub.Reason = "the network has named no name server yet, and names do not resolve until it has"
			}
		}
	}
	if named {
		stub.Stream = true // not every proxy carries datagrams
		switch {
		case mode == tunnelDNS:
			mode, stub.Names, stub.Reason = "proxy", far.names(), ""
		case stub.HTTPS != "":
			stub.Bootstrap, stub.Reason = far.names(), ""
		}
	}
	if i == 0 {
		p.listen = listen
	} else if stub.Reason != "" {
		stub.Reason = "the network " + n.Name + ": " + stub.Reason
	}
	p.Warnings = append(p.Warnings, warnings...)
	return mode, stub, nil
}

// texts writes things by their String method; never nil.
func texts[T fmt.Stringer](ts []T) []string {
	out := make([]string, 0, len(ts))
	for _, t := range ts {
		out = append(out, t.String())
	}
	return out
}
