// SPDX-License-Identifier: Apache-2.0

// The link: a device, its two sides, and who watches them.

package wg

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"umrun/stacks"
)

// Options are what [Open] takes beside the file. The zero value is good.
type Options struct {
	// Log gets set-up and tear-down, and at Debug what the device says. Nil
	// discards.
	Log *slog.Logger

	// Resolve finds the addresses of an endpoint's name, best first. Nil asks
	// the host's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// A Link carries the IP packets of one stack through WireGuard. It offloads, see
// stacks.Offloads. Methods are safe for concurrent use but for Read, which has
// one caller at a time.
type Link struct {
	cfg     *Config
	log     *slog.Logger
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	opened  time.Time
	dev     *device.Device
	tun     *tunDevice
	bind    *bind

	up     chan struct{} // closed by watch
	isUp   atomic.Bool
	poked  chan struct{} // capacity 1: one look answers any number of pokes
	cancel context.CancelFunc
	once   sync.Once
	wg     sync.WaitGroup // watch and follow
}

var (
	_ stacks.Link     = (*Link)(nil)
	_ stacks.Offloads = (*Link)(nil)
	_ stacks.Waiter   = (*Link)(nil)

	_ stacks.TryWriter = (*Link)(nil)
	_ stacks.Pusher    = (*Link)(nil)
	_ stacks.TUNServer = (*Link)(nil)
)

// Open starts WireGuard as cfg says, which must not change afterwards, and sends
// the first handshake to every peer that has an endpoint. It does not wait for an
// answer, see [Link.Up] and [Link.WaitUp].
//
// Open blocks while endpoint names are resolved, until ctx ends at the latest; a
// name that cannot be resolved is an error only if no other peer has an endpoint.
// Other errors are those of the UDP sockets, such as EADDRINUSE for ListenPort.
func Open(ctx context.Context, cfg *Config, o Options) (*Link, error) {
	l := &Link{
		cfg:     cfg,
		log:     o.Log,
		resolve: o.Resolve,
		opened:  time.Now(),
		up:      make(chan struct{}),
		poked:   make(chan struct{}, 1),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.resolve == nil {
		l.resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("open WireGuard: %w", err)
	}
	eps, err := l.endpoints(ctx)
	if err != nil {
		return nil, err
	}
	l.tun = newTUN(cfg.mtu())
	l.tun.out.meter.shared = len(cfg.Peers) > 1
	l.bind = newBind(l.poke, l.tun.out.meter.sent)
	l.dev = device.NewDevice(l.tun, l.bind, l.logger())
	if err := l.start(eps); err != nil {
		l.dev.Close()
		return nil, fmt.Errorf("open WireGuard: %w", err)
	}
	life, cancel := context.WithCancel(context.Background()) // alive until Close
	l.cancel = cancel
	l.wg.Go(func() { l.watch(life) })
	if l.hasNames() {
		l.wg.Go(func() { l.follow(life) })
	}
	return l, nil
}

// start configures the device and brings it up. eps has an endpoint for each
// peer, or the zero AddrPort.
func (l *Link) start(eps []netip.AddrPort) error {
	if err := l.dev.IpcSet(l.uapi(eps)); err != nil {
		return err
	}
	if err := l.dev.Up(); err != nil {
		if l.cfg.ListenPort != 0 {
			return fmt.Errorf("listen on UDP port %d: %w", l.cfg.ListenPort, err)
		}
		return err
	}
	waits := false
	for i, p := range l.cfg.Peers {
		if peer := l.dev.LookupPeer(device.NoisePublicKey(p.PublicKey)); peer != nil && eps[i].IsValid() {
			// Not only when there is something to send: who waits for Up sends
			// nothing before. An error is counted by the bind, and tried again.
			_ = peer.SendHandshakeInitiation(false)
		}
		waits = waits || !p.Endpoint.IsZero()
	}
	if !waits {
		l.setUp() // peers without endpoint come to us, if they do
	}
	return nil
}

// uapi writes the configuration in the device's protocol, see
// https://www.wireguard.com/xplatform/.
func (l *Link) uapi(eps []netip.AddrPort) string {
	var b strings.Builder
	fmt.Fprintf(&b, "private_key=%s\nlisten_port=%d\n", l.cfg.PrivateKey.hex(), l.cfg.ListenPort)
	for i, p := range l.cfg.Peers {
		fmt.Fprintf(&b, "public_key=%s\n", hex.EncodeToString(p.PublicKey[:]))
		if !p.PresharedKey.IsZero() {
			fmt.Fprintf(&b, "preshared_key=%s\n", p.PresharedKey.hex())
		}
		if eps[i].IsValid() {
			fmt.Fprintf(&b, "endpoint=%s\n", eps[i])
		}
		fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", int(p.Keepalive/time.Second))
		for _, dst := range p.AllowedIPs {
			fmt.Fprintf(&b, "allowed_ip=%s\n", dst)
		}
	}
	return b.String()
}

// logger bridges the device's log. Its errors are Debug as well: they are about
// single packets, and what lasts shows in [Link.Stats].
func (l *Link) logger() *device.Logger {
	if !l.log.Enabled(context.Background(), slog.LevelDebug) {
		return &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf}
	}
	logf := func(format string, args ...any) {
		l.log.Debug("wireguard: " + fmt.Sprintf(format, args...))
	}
	return &device.Logger{Verbosef: logf, Errorf: logf}
}

// Type returns stacks.LinkIP.
func (l *Link) Type() stacks.LinkType { return stacks.LinkIP }

// MTU returns the inner MTU in bytes.
func (l *Link) MTU() int { return l.cfg.mtu() }

// BatchSize returns 128, wireguard-go's own batch.
func (l *Link) BatchSize() int { return batch }

// Offloads returns true.
func (l *Link) Offloads() bool { return true }

// Up returns a channel that is closed at the first handshake with any peer, or
// from the start if no peer has an endpoint.
func (l *Link) Up() <-chan struct{} { return l.up }

// Read takes what came through the tunnel; see stacks.Link.
func (l *Link) Read(bufs [][]byte, sizes []int) (int, error) {
	n, err := l.tun.in.read(bufs, sizes)
	return n, linkError(err)
}

// Write sends packets through the tunnel; see stacks.Link. It blocks while the
// device is busy. A packet whose stacks.Offloads header does not fit, or that is
// larger than the MTU once cut, is counted in [Stats] and dropped.
func (l *Link) Write(bufs [][]byte) (int, error) {
	n, err := l.tun.out.write(bufs)
	return n, linkError(err)
}

// Push implements [stacks.Pusher].
func (l *Link) Push(f func(packet []byte)) {
	l.tun.in.mu.Lock()
	defer l.tun.in.mu.Unlock()
	l.tun.in.push = f
}

// ServeTUN has the device read and write a TUN device of the kernel, as if it had been
// made for it; see [stacks.TUNServer].
func (l *Link) ServeTUN(fd int) error {
	k, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		return fmt.Errorf("serve a TUN device: %w", err)
	}
	return linkError(l.tun.serve(k))
}

// TryWrite is Write as far as the device has buffers ready; see stacks.TryWriter.
func (l *Link) TryWrite(bufs [][]byte) int { return l.tun.out.tryWrite(bufs) }

// linkError turns what a tun.Device says at the end into what a Link says.
func linkError(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return net.ErrClosed
	}
	return err
}

// Close ends the link and its sockets. Blocked Read and Write return
// net.ErrClosed.
func (l *Link) Close() error {
	l.once.Do(func() {
		l.cancel()
		l.dev.Close()
		l.wg.Wait()
	})
	return nil
}
