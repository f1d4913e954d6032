// SPDX-License-Identifier: Apache-2.0

// Tests of order, back-pressure and closing.

package pipe_test

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"umrun/stacks"
	"umrun/stacks/pipe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func readOne(t *testing.T, l stacks.Link) []byte {
	t.Helper()
	bufs, sizes := [][]byte{make([]byte, stacks.MaxPacket)}, []int{0}
	n, err := l.Read(bufs, sizes)
	if err != nil || n != 1 {
		t.Fatalf("Read = %d, %v", n, err)
	}
	return bufs[0][:sizes[0]]
}

func TestOrderAndSizes(t *testing.T) {
	for _, offload := range []bool{false, true} {
		a, b := pipe.New(pipe.Config{Offload: offload})
		defer a.Close()
		defer b.Close()
		want := [][]byte{{1}, bytes.Repeat([]byte{2}, 1500), {}, {3, 3}}
		if n, err := a.Write(want); n != len(want) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		for i, w := range want {
			if got := readOne(t, b); !bytes.Equal(got, w) {
				t.Errorf("packet %d: got %d bytes, want %d", i, len(got), len(w))
			}
		}
	}
}

func TestTooLong(t *testing.T) {
	tests := []struct {
		name string
		cfg  pipe.Config
		len  int
		want error
	}{
		{"mtu", pipe.Config{MTU: 1280}, 1280, nil},
		{"above mtu", pipe.Config{MTU: 1280}, 1281, pipe.ErrTooLong},
		{"super-segment", pipe.Config{Offload: true}, 10 + 65535, nil},
		{"above 64 KiB", pipe.Config{Offload: true}, 10 + 65536, pipe.ErrTooLong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pipe.New(tt.cfg)
			defer a.Close()
			defer b.Close()
			n, err := a.Write([][]byte{{1}, make([]byte, tt.len)})
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if want := 2; tt.want == nil && n != want || tt.want != nil && n != 1 {
				t.Errorf("%d packets taken", n)
			}
		})
	}
}

// TestBackPressure fills one direction until the writer stops, and sees that it
// goes on exactly when the reader does and that nothing is lost.
func TestBackPressure(t *testing.T) {
	a, b := pipe.New(pipe.Config{})
	defer b.Close()
	const total = 5000
	done := make(chan error, 1)
	progress := make(chan int, total)
	go func() {
		for i := range total {
			if _, err := a.Write([][]byte{{byte(i), byte(i >> 8)}}); err != nil {
				done <- err
				return
			}
			progress <- i
		}
		done <- nil
	}()
	select {
	case err := <-done:
		t.Fatalf("%d packets fitted into the pipe (error %v)", total, err)
	case <-time.After(50 * time.Millisecond):
	}
	if n := len(progress); n >= total || n == 0 {
		t.Fatalf("writer got to packet %d", n)
	}
	for i := range total {
		if got := readOne(t, b); got[0] != byte(i) || got[1] != byte(i>>8) {
			t.Fatalf("packet %d is %v", i, got)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	a.Close()
}

func TestCloseUnblocks(t *testing.T) {
	a, b := pipe.New(pipe.Config{})
	errs := make(chan error, 2)
	go func() {
		_, err := a.Read([][]byte{make([]byte, 1500)}, []int{0})
		errs <- err
	}()
	go func() {
		for {
			if _, err := a.Write([][]byte{{1}}); err != nil {
				errs <- err
				return
			}
		}
	}()
	a.Close()
	for range 2 {
		select {
		case err := <-errs:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("error %v, want net.ErrClosed", err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("still blocked after Close")
		}
	}
	if err := a.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	// The other end is a cable that ends nowhere: writing never blocks.
	for range 2000 {
		if _, err := b.Write([][]byte{{1}}); err != nil {
			t.Fatalf("write to a dead peer: %v", err)
		}
	}
	b.Close()
}
