// SPDX-License-Identifier: Apache-2.0

// Cases of TCP sockets: data, buffers, edges, acknowledgement.

package stacktest

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

func tcpBulk(t *testing.T, p Pair)   { bulk(t, p, p.B4) }
func tcpBulkV6(t *testing.T, p Pair) { bulk(t, p, p.B6) }

// bulk sends 8 MiB both ways at once, in pieces of all sizes, and compares
// hashes.
func bulk(t *testing.T, p Pair, b netip.Addr) {
	const total = 8 << 20
	c, s := connected(t, p, b)
	data := make([]byte, total)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < total; i += 8 {
		v := rng.Uint64()
		for j := range 8 {
			data[i+j] = byte(v >> (8 * j))
		}
	}
	want := sha256.Sum256(data)
	type end struct {
		sock stacks.StreamSocket
		rest *bytes.Reader
		hash interface {
			io.Writer
			Sum([]byte) []byte
		}
		got int
		eof bool
	}
	ends := []*end{
		{sock: c, rest: bytes.NewReader(data), hash: sha256.New()},
		{sock: s, rest: bytes.NewReader(data), hash: sha256.New()},
	}
	deadline := time.Now().Add(3 * patience)
	for !ends[0].eof || !ends[1].eof {
		if time.Now().After(deadline) {
			t.Fatalf("got %d and %d of %d bytes in time", ends[0].got, ends[1].got, total)
		}
		idle := true
		for _, e := range ends {
			if n := e.rest.Len(); n > 0 {
				piece := io.NewSectionReader(e.rest, int64(total-n), int64(1+rng.IntN(60000)))
				b, _ := io.ReadAll(piece)
				sent, err := e.sock.Send(bytes.NewReader(b))
				if err != nil && err != unix.EAGAIN {
					t.Fatalf("send: %v", err)
				}
				if sent > 0 {
					idle = false
				}
				e.rest.Seek(int64(total-n+sent), io.SeekStart)
				if e.rest.Len() == 0 {
					if err := e.sock.Shutdown(unix.SHUT_WR); err != nil {
						t.Fatalf("shutdown: %v", err)
					}
				}
			}
			if e.eof {
				continue
			}
			n, err := e.sock.Recv(e.hash, 1+rng.IntN(200000))
			e.got += n
			if n > 0 {
				idle = false
			}
			switch err {
			case nil, unix.EAGAIN:
			case io.EOF:
				e.eof = true
			default:
				t.Fatalf("recv: %v", err)
			}
		}
		if idle {
			time.Sleep(time.Millisecond)
		}
	}
	for i, e := range ends {
		if e.got != total || !bytes.Equal(e.hash.Sum(nil), want[:]) {
			t.Errorf("end %d got %d bytes with another hash", i, e.got)
		}
	}
}

// fill sends until the connection has taken nothing for a while, and returns how
// much it took.
func fill(t *testing.T, c stacks.StreamSocket) (sent int) {
	t.Helper()
	chunk := make([]byte, 4096)
	var full time.Time // since when, zero: it is not
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		n, err := c.Send(bytes.NewReader(chunk))
		sent += n
		switch {
		case err == nil:
			full = time.Time{}
		case err != unix.EAGAIN:
			t.Fatalf("send: %v", err)
		case full.IsZero():
			full = time.Now()
		case time.Since(full) > hush:
			return sent
		}
	}
	t.Fatalf("%d bytes went into a connection that nobody reads", sent)
	return 0
}

// tcpFullBuffer fills a connection that nobody reads, sees that it becomes
// unwritable, and writable when it is read.
func tcpFullBuffer(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	sent := 0
	// On a busy machine an acknowledgement may come late and make room again.
	await(t, "a full connection that polls so", func() bool {
		sent += fill(t, c)
		return c.Poll()&unix.POLLOUT == 0
	})
	recv(t, s, sent)
	awaitPoll(t, c, unix.POLLOUT)
	send(t, c, []byte("more"))
	recv(t, s, 4)
}

// A stingyWriter takes at most n bytes in one call.
type stingyWriter struct {
	bytes.Buffer
	n int
}

func (w *stingyWriter) Write(b []byte) (int, error) {
	if len(b) > w.n {
		n, _ := w.Buffer.Write(b[:w.n])
		return n, io.ErrShortWrite
	}
	return w.Buffer.Write(b)
}

func tcpShortWriter(t *testing.T, p Pair) {
	if _, ok := p.B.(Kernel); ok {
		t.Skip("the kernel double reads before it writes: it cannot leave the rest queued")
	}
	c, s := connected(t, p, p.B4)
	want := strings.Repeat("0123456789", 100)
	send(t, c, []byte(want))
	w := &stingyWriter{n: 7}
	await(t, "all bytes", func() bool {
		before := w.Len()
		n, err := s.Recv(w, 1000)
		if err != nil && err != unix.EAGAIN {
			t.Fatalf("recv: %v", err)
		}
		if took := w.Len() - before; n != took {
			t.Fatalf("Recv says %d bytes, the writer took %d", n, took)
		}
		return w.Len() >= len(want)
	})
	if w.String() != want {
		t.Error("bytes were lost or doubled")
	}
}

func tcpUnacked(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	u, ok := c.(stacks.Unacked)
	if !ok {
		t.Skip("streams of this stack do not know their send queue")
	}
	if n, done := u.Unacked(); n != 0 || !done {
		t.Errorf("fresh: %d bytes, done %v", n, done)
	}
	send(t, c, make([]byte, 10000))
	recv(t, s, 10000)
	await(t, "acknowledgement", func() bool { n, done := u.Unacked(); return n == 0 && done })
	// More than the receiver takes stays queued.
	sent := fill(t, c)
	if n, done := u.Unacked(); n == 0 || n > sent || done {
		t.Errorf("full: %d of %d bytes, done %v", n, sent, done)
	}
	recv(t, s, sent)
	await(t, "acknowledgement", func() bool { n, done := u.Unacked(); return n == 0 && done })
}

func tcpWatch(t *testing.T, p Pair) {
	l, addr := listen(t, p.B, p.B4, 8)
	c := newTCP(t, p.A, unix.AF_INET)
	wake := make(chan stacks.Events, 100)
	watch := func(s stacks.Socket, mask stacks.Events) func() {
		return s.Watch(mask, func(e stacks.Events) {
			select {
			case wake <- e:
			default:
			}
		})
	}
	wait := func(what string, cond func() bool) {
		t.Helper()
		deadline := time.After(patience)
		for !cond() {
			select {
			case <-wake:
			case <-deadline:
				t.Fatalf("no edge for %s", what)
			}
		}
	}
	stopL := watch(l, unix.POLLIN)
	defer stopL()
	stopC := watch(c, unix.POLLIN|unix.POLLOUT|unix.POLLRDHUP)
	defer stopC()
	if err := c.Connect(addr); err != nil && err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	wait("connected", func() bool { return c.Poll()&unix.POLLOUT != 0 })
	wait("acceptable", func() bool { return l.Poll()&unix.POLLIN != 0 })
	s := accept(t, l)
	send(t, s, []byte("x"))
	wait("readable", func() bool { return c.Poll()&unix.POLLIN != 0 })
	recv(t, c, 1)
	if err := s.Shutdown(unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	wait("FIN", func() bool { return c.Poll()&unix.POLLRDHUP != 0 })
	s.Abort()
	wait("reset", func() bool { return c.Poll()&unix.POLLHUP != 0 })
	stopC()
	stopC()
}

// tcpSmallMessages sends requests and answers of a byte: with Nagle's algorithm
// and delayed acknowledgements in the wrong place each would take 40 ms.
func tcpSmallMessages(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	start := time.Now()
	const rounds = 100
	for range rounds {
		send(t, c, []byte("q"))
		recv(t, s, 1)
		send(t, s, []byte("a"))
		recv(t, c, 1)
	}
	if d := time.Since(start); d > rounds*20*time.Millisecond {
		t.Errorf("%d round trips took %v", rounds, d)
	}
}

// tcpCloseDelivers closes right after sending: all of it arrives, and the sender
// knows when.
func tcpCloseDelivers(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	sent := fill(t, c)
	c.Close()
	if _, ok := p.A.(Kernel); !ok {
		if _, done := c.(stacks.Unacked).Unacked(); done {
			t.Error("done before anybody read")
		}
	}
	recv(t, s, sent)
	awaitEvent(t, s, unix.POLLRDHUP)
	wantErr(t, "recv", recvErr(s), io.EOF)
	if _, ok := p.A.(Kernel); !ok {
		await(t, "acknowledgement of the FIN", func() bool { _, done := c.(stacks.Unacked).Unacked(); return done })
	}
}
