// SPDX-License-Identifier: Apache-2.0

// The provider of a network: a VPN client that runs beside the program.

package view

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod"
	"umrun/netmod/dns"
	"umrun/stacks"
	"umrun/stacks/netstack"
)

// A provider is a command that brings a network. It runs in a view of its own, on the
// host's network by the NAT, where its sockets are; only its TUN devices, and what it
// configures of them, are interfaces of the network's stack. So what the program sends
// has no way out but by the provider, and none when that has ended.
//
//	program --> stack --> tun0 <--read, write--> COMMAND --> stack --> NAT --> host
//
// Its output goes to the log. It ends with the network: SIGTERM, later SIGKILL.
type provider struct {
	network *providerNetwork
	far     *farStack
	view    *View
	ended   chan struct{} // closed when nothing of it is left
	status  int           // then; how it has ended
	wg      sync.WaitGroup

	speech *speech
}

const (
	providerSettled = 300 * time.Millisecond // without a change, before the network counts as up
	providerPatient = 3 * time.Second        // for it to obey SIGTERM
)

// start runs the command of network i, whose stack o has.
func (t *providerNetwork) start(ctx context.Context, p *Plan, i int, o *opened, stub *dns.Stub) error {
	st, ok := o.stack.(*netstack.Stack)
	if !ok {
		return fmt.Errorf("-n %s: a provider needs a userspace stack", t.Spec)
	}
	r := &provider{network: t, ended: make(chan struct{})}
	r.far = &farStack{stack: st, provider: r, dns: &learner{plan: p, number: i, name: t.Name, stack: st, stub: stub}}
	r.far.dns.asked = stacks.DNS{Servers: p.stubs[i].Servers, Search: p.stubs[i].Search}
	var in *os.File
	var err error
	if r.speech, in, err = hear(t.Name, p.conf.Log); err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		in.Close()
		<-r.speech.heard
		return err
	}
	defer null.Close()
	nat, err := ParseNetwork(string(NAT))
	if err == nil {
		r.view, err = Start(ctx, Config{
			Networks: []Network{nat},
			Argv:     []string{shell, "-c", t.Target},
			Env:      p.conf.Env,
			Dir:      p.conf.Dir,
			Stdin:    null, Stdout: in, Stderr: in,
			SigMask: p.conf.SigMask, SigIgnore: p.conf.SigIgnore, Umask: p.conf.Umask,
			WaitAll: true,
			Log:     p.conf.Log.With("provider", t.Name),
			far:     r.far,
		})
	}
	in.Close()
	if err != nil {
		<-r.speech.heard
		return fmt.Errorf("-n %s: %w", t.Spec, err)
	}
	r.wg.Go(func() { r.watch(p) })
	whole := &providedStack{st, r}
	r.far.mu.Lock()
	r.far.whole = whole
	r.far.mu.Unlock()
	o.stack, o.wait, o.provider = whole, r.await, r
	return nil
}

// watch tells when the command has ended.
func (r *provider) watch(p *Plan) {
	r.status, _ = r.view.Wait(context.Background())
	close(r.ended)
	if r.far.inUse() {
		p.conf.Log.Warn(fmt.Sprintf("the provider of the network %s has ended (exit status %d): the network is down", r.network.Name, r.status))
	}
}

// await waits until the network has an interface that is up and has an address, and
// then until no more comes: routes follow addresses.
func (r *provider) await(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	defer r.far.stack.Notify(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	var settled <-chan time.Time
	for {
		if r.far.usable() {
			settled = time.After(providerSettled)
		} else {
			settled = nil
		}
		select {
		case <-changed:
		case <-settled:
			return nil
		case <-r.ended:
			<-r.speech.heard // all that it said
			return r.network.unready(r.speech, fmt.Sprintf("has ended with exit status %d", r.status))
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return r.network.unready(r.speech, "has configured no TUN interface in time")
			}
			return ctx.Err()
		}
	}
}

// tell has the module know of all later changes. r may be nil.
func (r *provider) tell(mod *netmod.Module) {
	if r != nil {
		r.far.tell(mod)
	}
}

// close ends the command and takes its view down.
func (r *provider) close() error {
	r.far.close()
	select {
	case <-r.ended:
	default:
		// Its group may be gone, if it has put itself into the background, and the number another's.
		for _, pid := range r.view.sup.Processes() {
			_ = unix.Kill(pid, unix.SIGTERM)
			_ = unix.Kill(pid, unix.SIGCONT)
		}
		select {
		case <-r.ended:
		case <-time.After(providerPatient):
			ctx, cancel := context.WithTimeout(context.Background(), providerPatient)
			_, _ = r.view.sup.EndAll(ctx, 0)
			cancel()
		}
	}
	err := r.view.Close()
	r.wg.Wait()
	<-r.speech.heard
	return err
}

// providedStack is the stack of a network that a provider brings.
type providedStack struct {
	*netstack.Stack
	provider *provider
}

// Close ends the provider and closes the stack.
func (s *providedStack) Close() error {
	return errors.Join(s.provider.close(), s.Stack.Close())
}
