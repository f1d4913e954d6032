// SPDX-License-Identifier: Apache-2.0

// Tests of the embedding API: views without the umrun command.

package view_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"umrun/view"
)

func TestMain(m *testing.M) {
	view.Init()
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("os/signal.loop"), // of the runtime, never ends
	)
}

// start starts a program on none and returns its output once it has ended.
func start(t *testing.T, conf view.Config) (v *view.View, output func() string) {
	t.Helper()
	n, err := view.ParseNetwork("none")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	conf.Networks, conf.Stdout = []view.Network{n}, w
	if conf.Log == nil {
		conf.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	v, err = view.Start(ctx, conf)
	w.Close()
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v, func() string {
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
}

func TestStart(t *testing.T) {
	v, output := start(t, view.Config{Argv: []string{"sh", "-c", "echo $WORD; pwd; exit 3"}, Env: []string{"WORD=hello", "PATH=/bin:/usr/bin"}, Dir: "/"})
	st, err := v.Wait(t.Context())
	if st != 3 || err != nil {
		t.Errorf("Wait: %d, %v", st, err)
	}
	if got := output(); got != "hello\n/\n" {
		t.Errorf("output %q", got)
	}
	if _, ended := v.Ended(); !ended {
		t.Error("it has not ended")
	}
	if err := v.Signal(unix.SIGTERM); !errors.Is(err, unix.ESRCH) {
		t.Errorf("Signal after the end: %v", err)
	}
	for range 2 {
		if err := v.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// TestStdio: a connection of the host's network as standard input can be read, is
// good for nothing else, and is warned of.
func TestStdio(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	stdin, err := in.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if _, err := out.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	v, output := start(t, view.Config{
		Argv: []string{"/usr/bin/python3", "-c", `
import socket, os
print(os.read(0, 100).decode().strip())
try: socket.socket(fileno=0).getpeername()
except OSError as e: print(e.strerror)`},
		Stdin: stdin,
		Log:   slog.New(slog.NewTextHandler(&log, nil)),
	})
	if _, err := v.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if got, want := output(), "hello\nPermission denied\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if s := log.String(); !strings.Contains(s, "as=stdin") {
		t.Errorf("log: %s", s)
	}
}

func TestSignal(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	v, output := start(t, view.Config{Argv: []string{"sh", "-c", "trap 'echo got it; exit 9' USR1; : >$0; while :; do sleep 0.02; done", ready}})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the program does not run")
		}
	}
	if err := v.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if st, err := v.Wait(t.Context()); st != 9 || err != nil {
		t.Errorf("Wait: %d, %v", st, err)
	}
	if got := output(); got != "got it\n" {
		t.Errorf("output %q", got)
	}
}

// TestSeveral: views of one process do not know of each other.
func TestSeveral(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 4 {
		v, output := start(t, view.Config{Argv: []string{"sh", "-c", "sleep 0.$0; exit $0", string(rune('1' + i))}})
		wg.Go(func() {
			st, err := v.Wait(context.Background())
			if st != i+1 || err != nil {
				t.Errorf("Wait of %d: %d, %v", i+1, st, err)
			}
			output()
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestStartErrors(t *testing.T) {
	n, err := view.ParseNetwork("none")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	tests := []struct {
		name string
		conf view.Config
		code int
	}{
		{"no program", view.Config{Networks: []view.Network{n}, Log: log}, view.ExitConfig},
		{"no network", view.Config{Argv: []string{"true"}, Log: log}, view.ExitConfig},
		{"two networks of one name", view.Config{Networks: []view.Network{n, n}, Argv: []string{"true"}, Log: log}, view.ExitConfig},
		{"absent", view.Config{Networks: []view.Network{n}, Argv: []string{"/nowhere"}, Log: log}, view.ExitNotFound},
		{"ptrace", view.Config{Networks: []view.Network{n}, Argv: []string{"true"}, Backend: "ptrace", Log: log}, view.ExitMachine},
		{"no such directory", view.Config{Networks: []view.Network{n}, Argv: []string{"true"}, Dir: "/nowhere", Log: log}, view.ExitFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := view.Start(t.Context(), tt.conf)
			if err == nil {
				v.Close()
			}
			if got := view.ExitCode(err); got != tt.code {
				t.Errorf("status %d (%v), want %d", got, err, tt.code)
			}
		})
	}
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := view.Start(ctx, view.Config{Networks: []view.Network{n}, Argv: []string{"true"}, Log: log}); !errors.Is(err, context.Canceled) {
			t.Errorf("Start: %v", err)
		}
	})
}
