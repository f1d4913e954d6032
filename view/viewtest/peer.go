// SPDX-License-Identifier: Apache-2.0

// Peers: wireguard-go on a kernel TUN, and the clients that may reach it.

package viewtest

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses behind every peer. Two peers have the same ones: a tunnel must not
// be told from another by what it reaches.
var (
	PeerIP4  = netip.MustParseAddr("10.77.0.1")
	PeerIP6  = netip.MustParseAddr("fd77::1")
	OtherIP4 = netip.MustParseAddr("10.77.0.2") // a second address of the peer
	OtherIP6 = netip.MustParseAddr("fd77::2")

	UnreachableIP4 = netip.MustParseAddr("10.99.1.1") // ICMP host unreachable
	UnreachableIP6 = netip.MustParseAddr("fd99:1::1")
	ProhibitedIP4  = netip.MustParseAddr("10.99.2.1") // ICMP administratively prohibited
	ProhibitedIP6  = netip.MustParseAddr("fd99:2::1")
	BlackholeIP4   = netip.MustParseAddr("10.99.3.1") // silence
	BlackholeIP6   = netip.MustParseAddr("fd99:3::1")
)

// wgPort is where the peers listen; ports up to wgPort+9 count as tunnel
// traffic too, so that a test may name a dead endpoint.
const wgPort = 51820

// PortTLS is one of them, where TCP counts as tunnel traffic too.
const PortTLS = wgPort + 3

// A Peer is an independent WireGuard peer with servers behind it.
type Peer struct {
	*NS
	Index     int
	PublicKey string
	Endpoint  string // as the host reaches it

	w     *World
	dir   string
	serve *servers

	mu      sync.Mutex
	clients int            // guarded by mu
	native  *NS            // guarded by mu
	devices map[string]*NS // by kind; guarded by mu
	routers []*NS          // guarded by mu
	far     []io.Closer    // echoes of the second one; guarded by mu
	digests []string       // guarded by mu
}

// A Client is a key that a peer knows, with its addresses.
type Client struct {
	Conf       string // path of a wg-quick file
	Text       string // its content
	PrivateKey string
	IP4, IP6   netip.Addr
}

// AddPeer adds a peer with its servers. The first one is there already.
func (w *World) AddPeer(t testing.TB) *Peer {
	t.Helper()
	p := &Peer{w: w, Index: len(w.Peers)}
	p.dir = filepath.Join(w.dir, fmt.Sprintf("peer%d", p.Index))
	if err := p.build(); err != nil {
		t.Fatalf("make peer %d: %v", p.Index, err)
	}
	return p
}

func (p *Peer) build() error {
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		return err
	}
	var err error
	if p.NS, err = newNS(fmt.Sprintf("peer%d", p.Index)); err != nil {
		return err
	}
	p.w.Peers = append(p.w.Peers, p) // from here on the world closes it
	link := fmt.Sprintf("link%d", p.Index)
	host, self := fmt.Sprintf("192.0.2.%d", 8*p.Index+2), fmt.Sprintf("192.0.2.%d", 8*p.Index+1)
	p.Endpoint = fmt.Sprintf("%s:%d", self, wgPort)
	key, pub := newKey()
	p.PublicKey = pub
	if err := errors.Join(p.quiet(), p.w.account(p.NS),
		p.w.Host.ip("link add "+link+" type veth peer name link0 netns "+p.Path(),
			"addr add "+host+"/30 dev "+link, "link set "+link+" up",
			fmt.Sprintf("addr add 2001:db8:%d::2/64 dev %s nodad", p.Index, link)),
		p.ip("addr add "+self+"/30 dev link0", "link set link0 up",
			fmt.Sprintf("addr add 2001:db8:%d::1/64 dev link0 nodad", p.Index)),
		p.wireguard(p.w.alive, filepath.Join(p.dir, "wg.conf"), fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = %d\n", key, wgPort)),
	); err != nil {
		return err
	}
	if err := errors.Join(
		p.ip("addr add 10.77.0.1/24 dev wg0", "addr add 10.77.0.2/24 dev wg0",
			"addr add fd77::1/64 dev wg0 nodad", "addr add fd77::2/64 dev wg0 nodad",
			"link set wg0 mtu 1420 up",
			"route add unreachable 10.99.1.0/24", "-6 route add unreachable fd99:1::/64",
			"route add prohibit 10.99.2.0/24", "-6 route add prohibit fd99:2::/64",
			"route add blackhole 10.99.3.0/24", "-6 route add blackhole fd99:3::/64"),
		p.Sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"),
	); err != nil {
		return err
	}
	x, err := p.watch("link0", func(f frame) bool {
		return f.proto == unix.IPPROTO_UDP && f.dst.Port() >= wgPort && f.dst.Port() < wgPort+10 ||
			f.proto == unix.IPPROTO_TCP && f.dst.Port() == PortTLS || f.unreachable()
	})
	if err != nil {
		return err
	}
	p.w.watch = append(p.w.watch, x)
	return p.startServers()
}

func (p *Peer) close() {
	p.serve.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.native != nil {
		p.native.Close()
	}
	for _, c := range p.far {
		c.Close()
	}
	for _, n := range p.routers {
		n.Close()
	}
	for _, n := range p.devices {
		n.Close()
	}
	p.NS.Close()
}

// World is where the peer is.
func (p *Peer) World() *World { return p.w }

// Cmd prepares a command behind the tunnel, on the peer's side.
func (p *Peer) Cmd(ctx context.Context, args ...string) *Cmd { return p.Command(ctx, args...) }

// wireguard runs wireguard-go on wg0 and gives it its configuration.
func (n *NS) wireguard(ctx context.Context, file, conf string) error {
	// An empty /run: the control sockets of two wg0 must not meet.
	if err := n.Tmpfs("/run"); err != nil {
		return err
	}
	c := n.Command(ctx, "wireguard-go", "-f", "wg0")
	c.Env = append(c.Env, "LOG_LEVEL=error")
	if err := c.Start(); err != nil {
		return err
	}
	n.done.Go(func() { c.Wait() }) // ends when Close kills the process
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return err
	}
	return poll(5*time.Second, func() error {
		if r := n.Command(ctx, "wg", "setconf", "wg0", file).Result(); r.Status != 0 {
			return fmt.Errorf("%v\nwireguard-go: %s%s", r, c.Output(), c.Errors())
		}
		return nil
	})
}

// Client makes a key known to the peer and writes a wg-quick file for it.
// Everything goes into the tunnel.
func (p *Peer) Client(t testing.TB) *Client {
	t.Helper()
	p.mu.Lock()
	p.clients++
	n := 9 + p.clients
	p.mu.Unlock()
	c, err := p.client(n, p.Endpoint)
	if err != nil {
		t.Fatalf("new client: %v", err)
	}
	c.Conf = p.w.File(t, "wg.conf", c.Text)
	return c
}

func (p *Peer) client(n int, endpoint string) (*Client, error) {
	key, pub := newKey()
	c := &Client{
		PrivateKey: key,
		IP4:        netip.AddrFrom4([4]byte{10, 77, 0, byte(n)}),
		IP6:        netip.MustParseAddr(fmt.Sprintf("fd77::%x", n)),
	}
	if r := p.Command(p.w.alive, "wg", "set", "wg0", "peer", pub,
		"allowed-ips", fmt.Sprintf("%v/32,%v/128", c.IP4, c.IP6)).Result(); r.Status != 0 {
		return nil, fmt.Errorf("%v", r)
	}
	c.Text = fmt.Sprintf(`[Interface]
PrivateKey = %s
Address = %v/24, %v/64
DNS = %v, %v, corp.lab.test
MTU = 1420

[Peer]
PublicKey = %s
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = %s
`, key, c.IP4, c.IP6, PeerIP4, PeerIP6, p.PublicKey, endpoint)
	return c, nil
}

// Native returns a namespace whose only network is the kernel's stack over a
// tunnel to this peer: what umrun is compared with.
func (p *Peer) Native(t testing.TB) *NS {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.native != nil {
		return p.native
	}
	n, err := newNS("native")
	if err != nil {
		t.Fatal(err)
	}
	p.native = n
	self, far := fmt.Sprintf("192.0.2.%d", 8*p.Index+6), fmt.Sprintf("192.0.2.%d", 8*p.Index+5)
	c, err := p.client(4, fmt.Sprintf("%s:%d", far, wgPort))
	if err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("[Interface]\nPrivateKey = %s\n[Peer]\nPublicKey = %s\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = %s:%d\n",
		c.PrivateKey, p.PublicKey, far, wgPort)
	if err := errors.Join(n.quiet(), p.w.account(n),
		n.ip("link add link1 type veth peer name link1 netns "+p.Path(), "addr add "+self+"/30 dev link1", "link set link1 up"),
		p.ip("addr add "+far+"/30 dev link1", "link set link1 up"),
		n.wireguard(p.w.alive, filepath.Join(p.dir, "native.conf"), conf),
		n.ip("addr add 10.77.0.4/24 dev wg0", "addr add fd77::4/64 dev wg0 nodad", "link set wg0 mtu 1420 up",
			"route add default dev wg0", "-6 route add default dev wg0"),
		n.WriteFile("/etc/resolv.conf", "nameserver 10.77.0.1\nnameserver fd77::1\nsearch corp.lab.test\n"),
	); err != nil {
		t.Fatalf("native namespace: %v", err)
	}
	return n
}

// newKey returns a Curve25519 key pair in WireGuard's notation.
func newKey() (private, public string) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail on Linux
	}
	e := base64.StdEncoding.EncodeToString
	return e(k.Bytes()), e(k.PublicKey().Bytes())
}
