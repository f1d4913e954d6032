// SPDX-License-Identifier: Apache-2.0

// What a program leaves behind when its peer does not take it.

package netmod_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/netmod"
)

// TestDrainGivesUp: a peer that reads nothing keeps Drain waiting, which tells of it,
// until it is given up, and says how much was left.
func TestDrainGivesUp(t *testing.T) {
	w := newWorld(t, nil)
	l, err := w.stack.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetOption(unix.SOL_SOCKET, unix.SO_RCVBUF, []byte{0, 16, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if err := l.Bind(netip.MustParseAddrPort("127.0.0.1:7778")); err != nil {
		t.Fatal(err)
	}
	if err := l.(interface{ Listen(int) error }).Listen(1); err != nil {
		t.Fatal(err)
	}
	sup, err := intercept.Start(t.Context(), intercept.Config{
		Path: "/proc/self/exe", Argv: []string{"target"}, Rules: w.mod.Rules(),
		Env: append(os.Environ(), targetEnv+"=too-much", "GORACE=atexit_sleep_ms=0"),
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sup.Close()
	if _, err := sup.Wait(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	told := 0
	err = w.mod.Drain(ctx, func(bytes, _ int) { told = bytes })
	if !errors.Is(err, netmod.ErrUndelivered) || told == 0 {
		t.Errorf("Drain: %v, told of %d bytes", err, told)
	}
}

func init() {
	targets["too-much"] = func(w *transcript) {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		w.must("socket", err)
		w.must("connect", unix.Connect(c, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 7778}))
		w.must("nonblock", unix.SetNonblock(c, true))
		for err == nil {
			_, err = unix.Write(c, make([]byte, 64<<10))
			time.Sleep(time.Millisecond)
		}
	}
}
