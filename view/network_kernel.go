// SPDX-License-Identifier: Apache-2.0

// The kernel's stack: over links in a namespace of its own, of a namespace that is
// there, and of the host.

package view

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/netmod/dns"
	"umrun/stacks"
	"umrun/stacks/kernel"
)

// kernelStack is a namespace of the view's own, with those who answer names in it.
type kernelStack struct {
	*kernel.Stack
	names *dns.Server
}

// newKernelStack makes a namespace with links.
func (p *Plan) newKernelStack(i int, links []stacks.LinkConfig) (stacks.Stack, error) {
	n := p.conf.Networks[i]
	cc, _ := n.value("cc")
	st, err := kernel.New(kernel.Config{
		Links:             links,
		DNS:               stacks.DNS{Servers: p.stubs[i].Servers, Search: p.stubs[i].Search},
		CongestionControl: cc,
		RcvBufMax:         n.bytes("rcvbuf"),
		SndBufMax:         n.bytes("sndbuf"),
		Log:               p.conf.Log,
	})
	if err != nil {
		return nil, err
	}
	return &kernelStack{Stack: st}, nil
}

// serveNames answers where programs ask.
func (k *kernelStack) serveNames(at []netip.AddrPort, r dns.Resolver) error {
	k.names = dns.NewServer(r)
	for _, a := range at {
		udp, tcp, err := k.ListenNames(a)
		if a.Addr().Is6() && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			continue // there is no IPv6 here, for the program either
		}
		if err != nil {
			return fmt.Errorf("answer names: %w", err)
		}
		k.names.Serve(udp, tcp)
	}
	return nil
}

// Close closes the namespace and what answers in it.
func (k *kernelStack) Close() error {
	var err error
	if k.names != nil {
		err = k.names.Close()
	}
	return errors.Join(err, k.Stack.Close())
}

// kernelProblem words why there is no kernel stack.
func kernelProblem(n Network, err error) error {
	var un *kernel.UnavailableError
	if !errors.As(err, &un) {
		return fmt.Errorf("-n %s: %w", n.Spec, err)
	}
	pr := &Problem{Code: ExitMachine, What: fmt.Sprintf("-n %s: %v", n.Spec, err), Try: []string{un.Mend}, Err: err}
	if kinds[n.Kind]&hasStack != 0 {
		pr.Try = append(pr.Try, "stack=netstack, which needs neither", "umrun doctor")
	}
	return pr
}

// stackName returns which stack runs for network n of the plan: what stack= says, auto
// being decided by what this machine allows and by what is asked for.
func (p *Plan) stackName(n Network) string {
	_, captured := n.value("pcap")
	captured = captured || p.conf.Pcap != "" || p.conf.Flows != ""
	switch s, _ := n.value("stack"); {
	case n.Kind == Host || n.Kind == NetNS:
		return "kernel"
	case s == "":
		return "netstack"
	case s == "auto" && !captured && kernel.Probe(kinds[n.Kind]&hasLink != 0) == nil:
		return "kernel"
	case s == "auto":
		return "netstack"
	default:
		return s
	}
}

// checkKernel refuses what needs a namespace, or a stack, of our own.
func (p *Plan) checkKernel(i int) error {
	n := p.conf.Networks[i]
	_, captured := n.value("pcap")
	if (n.Kind == Host || n.Kind == NetNS) && (captured || p.conf.Pcap != "" || p.conf.Flows != "") {
		return badConfig("-n %s: pcap=, --pcap and --flows record a network of the view's own; this one others use too: run tcpdump there", n.Spec)
	}
	return nil
}

// nsNetwork is a network namespace that somebody else has made.
type nsNetwork struct{ Network }

func newNetNS(n Network) (*nsNetwork, error) {
	f, err := kernel.OpenFile(n.Target)
	var un *kernel.UnavailableError
	var pe *fs.PathError
	switch {
	case errors.As(err, &un):
		return nil, kernelProblem(n, err)
	case errors.As(err, &pe):
		return nil, badConfig("%s: %w", n.Target, pe.Err)
	case err != nil:
		return nil, badConfig("%w", err)
	}
	return &nsNetwork{n}, f.Close()
}

func (n *nsNetwork) describe() (PlanNetwork, []string) { return PlanNetwork{File: n.Target}, nil }
func (n *nsNetwork) dns() stacks.DNS                   { return stacks.DNS{} }
func (n *nsNetwork) reaches(netip.Addr) bool           { return true }
func (n *nsNetwork) open(_ context.Context, log *slog.Logger) (opened, error) {
	st, err := kernel.Open(n.Target, log)
	if err != nil {
		return opened{}, kernelProblem(n.Network, err)
	}
	return opened{stack: st}, nil
}

// hostNetwork is the network that umrun itself is on.
type hostNetwork struct{ Network }

func (hostNetwork) describe() (PlanNetwork, []string) { return PlanNetwork{}, nil }
func (hostNetwork) dns() stacks.DNS                   { return stacks.DNS{} }
func (hostNetwork) reaches(netip.Addr) bool           { return true }
func (hostNetwork) open(_ context.Context, log *slog.Logger) (opened, error) {
	st, err := kernel.Host(log)
	if err != nil {
		return opened{}, err
	}
	return opened{stack: st}, nil
}

// asksItself tells whether the program on n asks name servers itself, with nobody of
// ours between: in a namespace that is not the view's own nothing is changed, and
// nothing listens.
func (n Network) asksItself() bool { return n.Kind == Host || n.Kind == NetNS }

// planOwnStub is planStub for such a network. As one of several it is asked like any
// other: by us, since the program does not know which one to ask.
func (p *Plan) planOwnStub(i int, mode string, resolv dns.Resolv) (string, dns.Config, error) {
	n := p.conf.Networks[i]
	if len(p.conf.Networks) > 1 {
		stub, listen, _, err := dns.Plan(resolv, stacks.DNS{}, p.nets[i].reaches, mode)
		if err != nil {
			return "", stub, badConfig("%w", err)
		}
		if i == 0 {
			p.listen = listen
		}
		if mode == "" || mode == "tunnel" {
			mode, stub.Reason, stub.Servers = "tunnel", "", nil
			for _, a := range resolv.Nameservers {
				stub.Servers = append(stub.Servers, netip.AddrPortFrom(a.Unmap(), 53))
			}
		}
		return mode, stub, nil
	}
	if mode != "" && mode != "tunnel" {
		return "", dns.Config{}, badConfig("--dns %s: on %s the program itself asks the servers of %s, in that network; nothing listens there for it", mode, n.Kind, resolvConf)
	}
	const asks = "program"
	for _, a := range resolv.Nameservers {
		if !a.IsLoopback() || n.Kind == Host {
			return asks, dns.Config{}, nil
		}
	}
	p.Warnings = append(p.Warnings, fmt.Sprintf("%s names only servers of this machine: names resolve if one answers there inside %s, too", resolvConf, n.Target))
	return asks, dns.Config{}, nil
}
