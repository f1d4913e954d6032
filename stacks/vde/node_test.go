// SPDX-License-Identifier: Apache-2.0

// Our own switch and hub: with our plugs, with Debian's, and what is left behind.

package vde_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"umrun/stacks/vde"
)

// TestNode: who hears what of a unicast frame to a known address.
func TestNode(t *testing.T) {
	for _, tt := range []struct {
		scheme     string
		others     bool // see it too
		otherPlugs bool // hear each other at all
	}{
		{"switch", false, true},
		{"hub", true, true},
		{"multi", false, false},
	} {
		t.Run(tt.scheme, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "node")
			own := plug(t, tt.scheme+"://"+dir)
			a, b := plug(t, "vde://"+dir), plug(t, dir)
			lo, la, lb := listen(t, own), listen(t, a), listen(t, b)

			hello := frame(broadcast, mac(0), "from the node")
			write(t, own, hello)
			la.want(t, hello)
			lb.want(t, hello)

			hello = frame(broadcast, mac(1), "from a")
			write(t, a, hello)
			lo.want(t, hello)
			if tt.otherPlugs {
				lb.want(t, hello)
			}
			// To the node's own port, whose address is known.
			one := frame(mac(0), mac(2), "to the node")
			write(t, b, one)
			lo.want(t, one)
			if tt.others {
				la.want(t, one)
			}
			// And from it.
			one = frame(mac(2), mac(0), "from the node")
			write(t, own, one)
			lb.want(t, one)
			if tt.others || tt.scheme == "multi" {
				la.want(t, one)
			}
			last := frame(broadcast, mac(0), "the end")
			write(t, own, last)
			la.want(t, last)
			lb.want(t, last)
			own.Close()
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("the directory is left behind: %v, %s", err, names(t, dir))
			}
			if _, err := own.Write([][]byte{last}); err != net.ErrClosed {
				t.Errorf("write after close: %v", err)
			}
		})
	}
}

// TestNodePlugs: plugs come and go; a name that moved to another port is found there.
func TestNodePlugs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	own := plug(t, "switch://"+dir)
	lo := listen(t, own)
	for i := range 5 {
		a := plug(t, dir)
		la := listen(t, a)
		hi := frame(broadcast, mac(7), fmt.Sprint("plug ", i))
		write(t, a, hi)
		lo.want(t, hi)
		re := frame(mac(7), mac(0), fmt.Sprint("answer ", i))
		write(t, own, re)
		la.want(t, re)
		a.Close()
	}
	eventually(t, func() error {
		if n := names(t, dir); n != "ctl" {
			return fmt.Errorf("left: %s", n)
		}
		return nil
	})
}

// TestNodeCrowd: more plugs at once than a listener's queue holds come, and go. (Debian's
// vde_switch may exit over it: "remove_fd: Couldn't find descriptor".)
func TestNodeCrowd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	plug(t, "switch://"+dir)
	errs := make(chan error, 60) // one of each
	for range cap(errs) {
		go func() {
			l, err := vde.OpenFrames(context.Background(), &vde.URL{Scheme: "vde", Arg: dir}, vde.Options{})
			if err == nil {
				err = l.Close()
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestNodeLongPath: a node that can be made can be plugged into.
func TestNodeLongPath(t *testing.T) {
	dir := t.TempDir() + "/"
	dir += strings.Repeat("x", 96-len(dir))
	plug(t, "switch://"+dir)
	plug(t, "vde://"+dir)
	t.Chdir(filepath.Dir(dir))
	if l, err := vde.Open(context.Background(), parse(t, "hub://"+filepath.Base(dir)+"y"), vde.Options{}); err == nil || !strings.Contains(err.Error(), "97 bytes of 96") {
		t.Errorf("%v, %v", l, err)
	}
}

// TestNodeStuck: a plug that does not read any more holds nobody up.
func TestNodeStuck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	own, stuck, b := plug(t, "hub://"+dir), plug(t, dir), plug(t, dir)
	lb := listen(t, b)
	write(t, stuck, frame(broadcast, mac(9), "last words"))
	lb.want(t, frame(broadcast, mac(9), "last words"))
	f := frame(broadcast, mac(0), strings.Repeat("s", 1400))
	began := time.Now()
	for range 3000 {
		write(t, own, f)
		lb.want(t, f)
	}
	if d := time.Since(began); d > 5*time.Second { // 15 s if each had to wait
		t.Errorf("3000 frames beside a plug that does not read took %v", d)
	}
}

// TestNodeOccupied: a directory in use is refused, one of a dead node is taken over,
// any other is not touched.
func TestNodeOccupied(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	own := plug(t, "switch://"+dir)
	open := func() (closer interface{ Close() error }, err error) {
		return vde.OpenFrames(context.Background(), parse(t, "hub://"+dir), vde.Options{})
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "vde://"+dir) {
		t.Errorf("a second node: %v", err)
	}
	own.Close()
	os.Mkdir(dir, 0o700)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/ctl", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	second, err := open()
	if err != nil {
		t.Fatalf("the directory of a dead node: %v", err)
	}
	second.Close()
	os.Mkdir(dir, 0o700)
	if err := os.WriteFile(dir+"/letter", []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "letter") {
		t.Errorf("somebody's directory: %v", err)
	}
}

// TestNodeForeign: what a plug asks of a node that is not its to ask.
func TestNodeForeign(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	plug(t, "switch://"+dir)
	for name, req := range map[string][]byte{
		"empty":       {},
		"noise":       []byte("GET / HTTP/1.0\r\n\r\n"),
		"no socket":   vde.EncodeRequest(t, "/etc/passwd", 0),
		"no file":     vde.EncodeRequest(t, dir+"/none", 0),
		"version 2":   append(append(vde.EncodeRequest(t, "/x", 0)[:4:4], 2, 0, 0, 0), make([]byte, 200)...),
		"half of one": vde.EncodeRequest(t, "/x", 0)[:100],
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("unix", dir+"/ctl")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if len(req) == 0 {
				c.(*net.UnixConn).CloseWrite()
			} else if _, err := c.Write(req); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			b := make([]byte, 200)
			if n, err := c.Read(b); err == nil || os.IsTimeout(err) {
				t.Errorf("answered with %d bytes, %v", n, err)
			}
		})
	}
}

// TestVdePlug: Debian's vde_plug joins our switch and theirs.
func TestVdePlug(t *testing.T) {
	need(t, "vde_plug")
	sw, _ := startSwitch(t)
	dir := filepath.Join(t.TempDir(), "node")
	own := plug(t, "switch://"+dir)
	lo := listen(t, own)
	start(t, "vde_plug", "vde://"+dir, "vde://"+sw)
	b := plug(t, sw)
	lb := listen(t, b)
	eventually(t, func() error {
		write(t, own, frame(broadcast, mac(0), "ping"))
		select {
		case f := <-lb.frames:
			if !bytes.HasSuffix(f, []byte("ping")) {
				return fmt.Errorf("got %q", f)
			}
			return nil
		case <-time.After(20 * time.Millisecond):
			return fmt.Errorf("nothing")
		}
	})
	long := frame(mac(0), mac(1), strings.Repeat("z", 1500))
	write(t, b, long)
	lo.want(t, long)
}

// TestVdeplugNode: our plug in a switch of Debian's libvdeplug, with long frames.
func TestVdeplugNode(t *testing.T) {
	need(t, "vde_plug")
	dir := filepath.Join(t.TempDir(), "theirs")
	start(t, "vde_plug", "null://", "switch://"+dir)
	eventually(t, func() error { _, err := os.Stat(dir + "/ctl"); return err })
	a := plug(t, dir, vde.Options{MTU: 9000})
	b := plug(t, dir, vde.Options{MTU: 9000})
	lb := listen(t, b)
	eventually(t, func() error {
		write(t, a, frame(broadcast, mac(1), strings.Repeat("j", 9000)))
		select {
		case f := <-lb.frames:
			if len(f) != 9014 {
				return fmt.Errorf("got %d bytes", len(f))
			}
			return nil
		case <-time.After(20 * time.Millisecond):
			return fmt.Errorf("nothing")
		}
	})
}
