// SPDX-License-Identifier: Apache-2.0

// Package wgtest makes WireGuard peers for tests and demonstrations: keys,
// configurations that know each other, and a peer that speaks raw packets.
//
// Everything is on UDP at 127.0.0.1; keys are made for each use.
package wgtest

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"umrun/stacks/wg"
)

// Addresses inside of the tunnel that [Pair] gives to its ends.
var (
	AddrA = netip.MustParsePrefix("10.77.0.1/24")
	AddrB = netip.MustParsePrefix("10.77.0.2/24")
)

// Key returns a fresh private key; it panics where there is no randomness.
func Key() wg.Secret {
	k, err := wg.NewPrivateKey()
	if err != nil {
		panic(err)
	}
	return k
}

// Pair returns the configurations of two ends that know each other and have no
// endpoints and no ports yet: open b first, then set a.Peers[0].Endpoint by
// [Endpoint] to b's port.
func Pair() (a, b *wg.Config) {
	a = &wg.Config{Name: "a.conf", PrivateKey: Key(), Addresses: []netip.Prefix{AddrA}}
	b = &wg.Config{Name: "b.conf", PrivateKey: Key(), Addresses: []netip.Prefix{AddrB}}
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	a.Peers = []wg.Peer{{PublicKey: b.PrivateKey.Public(), AllowedIPs: all}}
	b.Peers = []wg.Peer{{PublicKey: a.PrivateKey.Public(), AllowedIPs: all}}
	return a, b
}

// Endpoint returns a port on loopback.
func Endpoint(port uint16) wg.Endpoint { return wg.Endpoint{Host: "127.0.0.1", Port: port} }

// Format writes c as a wg-quick file, keys included.
func Format(c *wg.Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Interface]\nPrivateKey = %s\n", c.PrivateKey.Reveal())
	for _, a := range c.Addresses {
		fmt.Fprintf(&b, "Address = %s\n", a)
	}
	for _, a := range c.DNS {
		fmt.Fprintf(&b, "DNS = %s\n", a)
	}
	for _, d := range c.Search {
		fmt.Fprintf(&b, "DNS = %s\n", d)
	}
	if c.MTU != 0 {
		fmt.Fprintf(&b, "MTU = %d\n", c.MTU)
	}
	if c.ListenPort != 0 {
		fmt.Fprintf(&b, "ListenPort = %d\n", c.ListenPort)
	}
	for _, p := range c.Peers {
		fmt.Fprintf(&b, "\n[Peer]\nPublicKey = %s\n", p.PublicKey)
		if !p.PresharedKey.IsZero() {
			fmt.Fprintf(&b, "PresharedKey = %s\n", p.PresharedKey.Reveal())
		}
		for _, a := range p.AllowedIPs {
			fmt.Fprintf(&b, "AllowedIPs = %s\n", a)
		}
		if !p.Endpoint.IsZero() {
			fmt.Fprintf(&b, "Endpoint = %s\n", p.Endpoint)
		}
		if p.Keepalive != 0 {
			fmt.Fprintf(&b, "PersistentKeepalive = %d\n", int(p.Keepalive/time.Second))
		}
	}
	return b.String()
}

// A RawPeer is a WireGuard peer that sends and receives packets as they are:
// nothing is verified or coalesced, so that it can play the hostile one.
type RawPeer struct {
	Port uint16 // of its UDP sockets

	tun *tuntest.ChannelTUN
	dev *device.Device
}

// NewRawPeer opens a peer with its own key that accepts remote, with psk unless
// that is zero, from and for any address.
func NewRawPeer(key wg.Secret, remote wg.PublicKey, psk wg.Secret) (*RawPeer, error) {
	p := &RawPeer{tun: tuntest.NewChannelTUN()}
	p.dev = device.NewDevice(p.tun.TUN(), conn.NewStdNetBind(),
		&device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf})
	conf := fmt.Sprintf("private_key=%s\npublic_key=%s\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n",
		keyHex(key.Reveal()), keyHex(remote.String()))
	if !psk.IsZero() {
		conf += fmt.Sprintf("preshared_key=%s\n", keyHex(psk.Reveal()))
	}
	if err := p.dev.IpcSet(conf); err != nil {
		p.dev.Close()
		return nil, fmt.Errorf("configure raw peer: %w", err)
	}
	if err := p.dev.Up(); err != nil {
		p.dev.Close()
		return nil, fmt.Errorf("open raw peer: %w", err)
	}
	state, err := p.dev.IpcGet()
	if err != nil {
		p.dev.Close()
		return nil, fmt.Errorf("ask raw peer: %w", err)
	}
	_, rest, _ := strings.Cut(state, "listen_port=")
	if _, err := fmt.Sscan(rest, &p.Port); err != nil {
		p.dev.Close()
		return nil, fmt.Errorf("port of raw peer: %w", err)
	}
	return p, nil
}

// Out takes packets that go to the other side. A send blocks until the peer takes
// it, for ever after Close.
func (p *RawPeer) Out() chan<- []byte { return p.tun.Outbound }

// In gives packets that came from the other side. It holds up the peer while
// nobody receives.
func (p *RawPeer) In() <-chan []byte { return p.tun.Inbound }

// Close ends the peer and waits for its readers and writers.
func (p *RawPeer) Close() { p.dev.Close() }

// keyHex turns base64 into what the device's protocol takes.
func keyHex(s string) string {
	k, err := wg.ParsePublicKey(s)
	if err != nil {
		panic(err) // it was printed by package wg
	}
	return hex.EncodeToString(k[:])
}
