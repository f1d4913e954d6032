// SPDX-License-Identifier: Apache-2.0

// Each pair of stack and link, beside what people have without umrun, in one table.

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

// stackNames and linkNames are what -stacks and -links take.
var (
	stackNames = []string{"netstack", "kernel"}
	linkNames  = []string{"wg", "nat", "tap", "tun", "vde", "socks5", "http", "ssh", "host", "netns"}
)

// A pair is a network of umrun's, and what it is held against: the same program to the
// same server.
type pair struct {
	link, stack string
	beside      string // words for the other
	open        [2]func() (*side, error)
}

// pairRows are the columns of the table.
var pairRows = []row{rows[0], rows[1], rows[4], rows[2]}

// everyPair takes samples of each pair and of what stands beside it.
func (b *bench) everyPair(ctx context.Context) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "link, stack\tbeside")
	for _, r := range pairRows {
		if r.unit == "/s" {
			fmt.Fprintf(t, "\t%s, p50 µs", r.title)
		} else {
			fmt.Fprintf(t, "\t%s, %s", r.title, r.unit)
		}
	}
	fmt.Fprintln(t)
	for _, f := range []func(context.Context) ([]pair, error){b.wgPairs, b.devicePairs, b.vdePairs, b.veths} {
		all, err := f(ctx)
		if err != nil {
			return err
		}
		for _, p := range all {
			if !b.wantsPair(p) {
				continue
			}
			got, err := b.inPairs(ctx, pairRows, p.open[:]...)
			if err != nil {
				t.Flush()
				return fmt.Errorf("%s, %s: %w", p.link, p.stack, err)
			}
			b.report.pair(t, p, got)
		}
	}
	fmt.Print("\nEach pair of stack and link\numrun / what stands beside it; the ratio is the median of the pairs' rates [min..max]: above 1 umrun is faster\n")
	return t.Flush()
}

// wantsLink reports whether a link was asked for, wantsPair whether a pair was.
func (b *bench) wantsLink(links ...string) bool {
	return slices.ContainsFunc(links, func(l string) bool { return listed(b.links, l) })
}

func (b *bench) wantsPair(p pair) bool {
	return b.wantsLink(p.link) && (listed(b.stacks, p.stack) || !slices.Contains(stackNames, p.stack))
}

// onStacks is a pair for each stack.
func onStacks(link, beside string, open func(stack string) (*side, error), other func() (*side, error)) (all []pair) {
	for _, stack := range stackNames {
		all = append(all, pair{link, stack, beside, [2]func() (*side, error){func() (*side, error) { return open(stack) }, other}})
	}
	return all
}

// pair prints a line of the table.
func (r *report) pair(t *tabwriter.Writer, p pair, got [][2][]sample) {
	fmt.Fprintf(t, "%s, %s\t%s", p.link, p.stack, p.beside)
	for i, row := range pairRows {
		var shown [2][]float64
		var ratio []float64
		for j := range got[i][0] {
			ratio = append(ratio, row.value(got[i][0][j])/row.value(got[i][1][j]))
			for k := range shown {
				v := row.value(got[i][k][j])
				if row.unit == "/s" {
					v = got[i][k][j].P50
				}
				shown[k] = append(shown[k], v)
			}
		}
		fmt.Fprintf(t, "\t%s / %s, %s", number(median(shown[0])), number(median(shown[1])), spread(ratio))
	}
	fmt.Fprintln(t)
}

func (b *bench) wgPairs(ctx context.Context) ([]pair, error) {
	return onStacks("wg", "wireguard-go, kernel", func(stack string) (*side, error) {
		return b.under(ctx, b.w.u, peerAddr, b.w.conf+",cc="+b.cc+",stack="+stack)
	}, func() (*side, error) { return b.native(ctx, b.w.n, peerAddr, b.w.wgN) }), nil
}

func (b *bench) devicePairs(ctx context.Context) (all []pair, err error) {
	if !b.wantsLink("tap", "tun") {
		return nil, nil
	}
	s, v, err := b.deviceWorld(ctx)
	if err != nil {
		return nil, err
	}
	for i, link := range []string{"tap", "tun"} {
		all = append(all, onStacks(link, "kernel, veth", func(stack string) (*side, error) {
			return b.under(ctx, s, deviceAddr(i), b.deviceSpec(i, stack))
		}, func() (*side, error) { return b.native(ctx, v, deviceAddr(2), 0) })...)
	}
	return all, nil
}

// vdePairs are clients on a vde_switch; the server is a TAP's kernel for both.
func (b *bench) vdePairs(ctx context.Context) ([]pair, error) {
	if !b.wantsLink("vde") {
		return nil, nil
	}
	dir := filepath.Join(b.w.dir, "vde-pairs")
	end, plug, err := b.vdeWorld(ctx, dir)
	if err != nil {
		return nil, err
	}
	return onStacks("vde", "TAP, vde_plug", func(stack string) (*side, error) {
		return b.under(ctx, b.w.u, vdeTAP1, "vde:"+dir+",ip="+vdeView+"/24,cc="+b.cc+",stack="+stack)
	}, func() (*side, error) { return b.native(ctx, end, vdeTAP1, plug) }), nil
}

// veths are all that reach a server behind a veth by the host's own network.
func (b *bench) veths(ctx context.Context) ([]pair, error) {
	proxied := b.wantsLink("socks5", "http", "ssh")
	if !proxied && !b.wantsLink("nat", "host", "netns") {
		return nil, nil
	}
	h, s, stop, err := b.rivalWorld(ctx)
	if err != nil {
		return nil, err
	}
	b.w.undo = append(b.w.undo, stop)
	native := func() (*side, error) { return b.native(ctx, h, rival4, 0) }
	cc := ",cc=" + b.cc
	beside, other := "kernel, veth", native
	if _, err := exec.LookPath("pasta"); err == nil {
		beside, other = "pasta", func() (*side, error) {
			s, _, err := b.rivalSide(ctx, h, slices.Index(rivalNames, "pasta"), rival4)
			return s, err
		}
	}
	all := onStacks("nat", beside, func(stack string) (*side, error) { return b.under(ctx, h, rival4, "nat"+cc+",stack="+stack) }, other)
	if proxied {
		proxies, err := b.proxyPairs(ctx, h, s)
		if err != nil {
			return nil, err
		}
		all = append(all, proxies...)
	}
	return append(all, pair{"host", "the host's", "natively", [2]func() (*side, error){
		func() (*side, error) { return b.under(ctx, h, rival4, "host") }, native,
	}}, pair{"netns", "the namespace's", "natively", [2]func() (*side, error){
		func() (*side, error) {
			return b.under(ctx, b.w.u, rival4, fmt.Sprintf("netns:/proc/%d/fd/%d", os.Getpid(), h.file.Fd()))
		}, native,
	}}), nil
}

// missing says of what a link's pairs are not measured.
func missing(link string, err error, packages string) {
	fmt.Printf("\nno pairs of %s: %v\n  try: apt-get install %s\n", link, err, packages)
}
