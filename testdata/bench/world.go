// SPDX-License-Identifier: Apache-2.0

// The world of the bench: three namespaces, two devices, one server.

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses. The outer networks are 10.99.1.0/24 (umrun) and 10.99.2.0/24
// (native); .1 is the client, .2 the peer.
const (
	peerAddr = "10.77.0.1"
	wgPort   = 51820
	mtu      = "1420"
)

// stepTime bounds every step of the set-up.
const stepTime = 20 * time.Second

// A world is what the measurements run in. All of it ends with close, and the
// processes also with this one.
type world struct {
	u, p, n *namespace
	conf    string // of umrun
	wgN     int    // process of the native wireguard-go
	dir     string
	undo    []func()
}

// newWorld makes it; on error nothing is left.
func newWorld(ctx context.Context, self string, o options) (_ *world, err error) {
	w := &world{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.dir, err = os.MkdirTemp("", "umrun-bench-"); err != nil {
		return nil, err
	}
	w.undo = append(w.undo, func() { os.RemoveAll(w.dir) })
	wireguard := o.wg
	if wireguard == "" {
		// The version of go.mod, which is the one that umrun is built with.
		wireguard = filepath.Join(w.dir, "wireguard-go")
		cmd := exec.CommandContext(ctx, "go", "build", "-mod=mod", "-o", wireguard, "golang.zx2c4.com/wireguard")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build wireguard-go: %w\n%s", err, out)
		}
	}
	for _, ns := range []**namespace{&w.u, &w.p, &w.n} {
		if *ns, err = newNamespace(); err != nil {
			return nil, err
		}
		w.undo = append(w.undo, (*ns).close)
		// A namespace may not choose each algorithm as its default (ip-sysctl,
		// tcp_allowed_congestion_control), but for each route.
		if err := (*ns).ip(ctx, "link set lo up", "route replace local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1 congctl "+o.cc); err != nil {
			return nil, err
		}
	}
	for i, ns := range []*namespace{w.u, w.n} {
		if err := w.cable(ctx, ns, i+1); err != nil {
			return nil, err
		}
	}
	if err := w.devices(ctx, wireguard, o.cc); err != nil {
		return nil, err
	}
	for _, s := range []struct {
		ns   *namespace
		addr string
	}{{w.p, peerAddr}, {w.u, "127.0.0.1"}} {
		if err := w.server(ctx, s.ns, self, "serve", s.addr); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) close() {
	for i := len(w.undo) - 1; i >= 0; i-- {
		w.undo[i]()
	}
	w.undo = nil
}

// cable joins ns and the peer's namespace by network number i.
func (w *world) cable(ctx context.Context, ns *namespace, i int) error {
	if err := ns.ip(ctx, fmt.Sprintf("link add outer type veth peer name outer%d netns /proc/%d/fd/%d", i, os.Getpid(), w.p.file.Fd())); err != nil {
		return err
	}
	for _, end := range []struct {
		ns  *namespace
		dev string
		n   int
	}{{ns, "outer", 1}, {w.p, fmt.Sprintf("outer%d", i), 2}} {
		if err := end.ns.ip(ctx, fmt.Sprintf("addr add 10.99.%d.%d/24 dev %s", i, end.n, end.dev), "link set "+end.dev+" up"); err != nil {
			return err
		}
	}
	return nil
}

// devices starts both wireguard-go and writes umrun's configuration.
func (w *world) devices(ctx context.Context, wireguard, cc string) error {
	var keys [3]*ecdh.PrivateKey // umrun, peer, native
	for i := range keys {
		k, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		keys[i] = k
	}
	uapi := fmt.Sprintf("private_key=%x\nlisten_port=%d\npublic_key=%x\nallowed_ip=10.77.0.2/32\npublic_key=%x\nallowed_ip=10.77.0.3/32\n",
		keys[1].Bytes(), wgPort, keys[0].PublicKey().Bytes(), keys[2].PublicKey().Bytes())
	if _, err := w.device(ctx, w.p, wireguard, "p", uapi, peerAddr, cc); err != nil {
		return err
	}
	uapi = fmt.Sprintf("private_key=%x\npublic_key=%x\nendpoint=10.99.2.2:%d\nallowed_ip=10.77.0.0/24\n",
		keys[2].Bytes(), keys[1].PublicKey().Bytes(), wgPort)
	pid, err := w.device(ctx, w.n, wireguard, "n", uapi, "10.77.0.3", cc)
	if err != nil {
		return err
	}
	w.wgN = pid
	w.conf = filepath.Join(w.dir, "umrun.conf")
	text := base64.StdEncoding.EncodeToString
	return os.WriteFile(w.conf, fmt.Appendf(nil,
		"[Interface]\nPrivateKey = %s\nAddress = 10.77.0.2/24\nMTU = %s\n\n[Peer]\nPublicKey = %s\nEndpoint = 10.99.1.2:%d\nAllowedIPs = 10.77.0.0/24\n",
		text(keys[0].Bytes()), mtu, text(keys[1].PublicKey().Bytes()), wgPort), 0o600)
}

// device starts a wireguard-go on a kernel TUN and returns its process number.
func (w *world) device(ctx context.Context, ns *namespace, wireguard, suffix, uapi, addr, cc string) (int, error) {
	name := fmt.Sprintf("ub%d%s", os.Getpid(), suffix) // unique: the control sockets share a directory
	cmd := exec.Command(wireguard, "-f", name)
	cmd.Env = append(os.Environ(), "LOG_LEVEL=error", "WG_PROCESS_FOREGROUND=1")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := ns.start(cmd); err != nil {
		return 0, err
	}
	w.undo = append(w.undo, func() { end(cmd) })
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	var c net.Conn
	for {
		var err error
		if c, err = net.Dial("unix", "/var/run/wireguard/"+name+".sock"); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("wireguard-go does not start: %w\n%s", err, log.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(stepTime))
	if _, err := io.WriteString(c, "set=1\n"+uapi+"\n"); err != nil {
		return 0, err
	}
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "errno=0\n" {
		return 0, fmt.Errorf("configure wireguard-go: %q, %w", answer, err)
	}
	return cmd.Process.Pid, ns.ip(ctx, "addr add "+addr+"/24 dev "+name, "link set "+name+" up mtu "+mtu,
		"route replace 10.77.0.0/24 dev "+name+" proto kernel scope link src "+addr+" congctl "+cc)
}

// server starts this program as the server, by argv.
func (w *world) server(ctx context.Context, ns *namespace, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := ns.start(cmd); err != nil {
		return err
	}
	w.undo = append(w.undo, func() { in.Close(); end(cmd) })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		return fmt.Errorf("the server does not start: %q, %w", line, err)
	}
	return nil
}

// end ends a process and waits for it.
func end(cmd *exec.Cmd) {
	cmd.Process.Signal(unix.SIGTERM)
	t := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
	defer t.Stop()
	cmd.Wait()
}

// A namespace is a network namespace without a name: it ends with its last
// process and this descriptor.
type namespace struct{ file, home *os.File }

func newNamespace() (*namespace, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	file, err := os.Open("/proc/thread-self/ns/net")
	if e := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); e != nil {
		runtime.LockOSThread() // once more: nobody else may get this thread
		return nil, fmt.Errorf("return from a namespace: %w", e)
	}
	return &namespace{file, home}, err
}

func (n *namespace) close() {
	n.file.Close()
	n.home.Close()
}

// do runs f in the namespace, on this thread.
func (n *namespace) do(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a namespace: %w", err)
	}
	err := f()
	if e := unix.Setns(int(n.home.Fd()), unix.CLONE_NEWNET); e != nil {
		runtime.LockOSThread() // once more: nobody else may get this thread
		return fmt.Errorf("return from a namespace: %w", e)
	}
	return err
}

// start starts cmd in the namespace.
func (n *namespace) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	return n.do(cmd.Start)
}

// ip runs ip(8), a command line each.
func (n *namespace) ip(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		ctx, cancel := context.WithTimeout(ctx, stepTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, "ip", strings.Fields(line)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := n.start(cmd); err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("ip %s: %w\n%s", line, err, out.String())
		}
	}
	return nil
}
