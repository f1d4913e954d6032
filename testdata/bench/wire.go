// SPDX-License-Identifier: Apache-2.0

// What a vde_switch carries by itself: frames that nobody's TCP has made.

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"umrun/stacks"
	"umrun/stacks/vde"
)

// Frames as a stream over TCP sends them: 1448 bytes of data in each, and an
// acknowledgement for every second one.
const (
	wireFrame   = 1514
	wirePayload = 1448
	wireAck     = 66
	wireAckEach = 2
	wireType    = 0x88b5 // for experiments (IEEE 802)

	wireWindow = 80                    // frames
	wireLost   = 10 * time.Millisecond // after that nothing will come
)

// wire measures what a switch passes on from one plug to another, with a sender that
// only sends and a receiver that only counts, and says what part of it a program could
// have as data. It is what any two ends on that switch have for a ceiling.
func (b *bench) wire(ctx context.Context) error {
	for _, acks := range []bool{false, true} {
		var rates, cpus []float64
		for range b.rounds {
			rate, cpu, err := b.wireOnce(ctx, acks)
			if err != nil {
				return fmt.Errorf("frames through the switch: %w", err)
			}
			rates, cpus = append(rates, rate), append(cpus, cpu)
		}
		what := "frames of 1514 bytes, nothing back"
		if acks {
			what = "... and a frame of 66 bytes back for every second one"
		}
		b.report.facts("vde_switch alone", [2]string{what, fmt.Sprintf("%s Mb/s of TCP's data; the switch has %s of a processor", spread(rates), spread(cpus))})
	}
	return nil
}

// wireOnce takes a sample: Mb/s of data that arrived, and the share of a processor that
// the switch had.
func (b *bench) wireOnce(ctx context.Context, acks bool) (rate, cpu float64, err error) {
	dir, err := os.MkdirTemp(b.w.dir, "wire")
	if err != nil {
		return 0, 0, err
	}
	hub, err := b.helper(ctx, b.w.u, dir+"/ctl", "vde_switch", "-s", dir)
	if err != nil {
		return 0, 0, err
	}
	defer end(hub)
	pid := hub.Process.Pid
	u, err := vde.Parse("vde://" + dir)
	if err != nil {
		return 0, 0, err
	}
	from, err := vde.OpenFrames(ctx, u, vde.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer from.Close()
	to, err := vde.OpenFrames(ctx, u, vde.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer to.Close()

	frame := func(size int, dst, src byte) []byte {
		f := make([]byte, size)
		copy(f, []byte{2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src})
		binary.BigEndian.PutUint16(f[12:], wireType)
		return f
	}
	// As TCP does, the sender has no more on its way than the receiver's socket holds
	// (92 frames by default): what overflows that is lost.
	var arrived atomic.Uint64
	room := make(chan struct{}, 1)
	var credit atomic.Int64
	credit.Store(wireWindow)
	give := func(n int) {
		credit.Add(int64(n))
		select {
		case room <- struct{}{}:
		default:
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer from.Close() // before the wait
	defer to.Close()
	ack := [][]byte{frame(wireAck, 1, 2)}
	if _, err := to.Write(ack); err != nil { // the switch learns where it is
		return 0, 0, err
	}
	wg.Go(func() {
		owed := 0
		readFrames(to, func(n int) {
			arrived.Add(uint64(n))
			if !acks {
				give(n)
				return
			}
			for owed += n; owed >= wireAckEach; owed -= wireAckEach {
				_, _ = to.Write(ack)
			}
		})
	})
	wg.Go(func() {
		readFrames(from, func(n int) {
			if acks {
				give(n * wireAckEach)
			}
		})
	})

	batch := make([][]byte, from.BatchSize())
	for i := range batch {
		batch[i] = frame(wireFrame, 2, 1)
	}
	send := func(d time.Duration) error {
		for until := time.Now().Add(d); time.Now().Before(until); {
			n := min(int(credit.Load()), len(batch))
			if n < wireAckEach {
				select {
				case <-room:
				case <-time.After(wireLost):
					credit.Store(wireWindow) // something was lost
				}
				continue
			}
			credit.Add(int64(-n))
			if _, err := from.Write(batch[:n]); err != nil && !errors.Is(err, net.ErrClosed) {
				return err
			}
		}
		return nil
	}
	if err := send(b.time / 10); err != nil {
		return 0, 0, err
	}
	start, before, first := time.Now(), usage(pid), arrived.Load()
	if err := send(b.time); err != nil {
		return 0, 0, err
	}
	took := time.Since(start).Seconds()
	n := arrived.Load() - first
	if n == 0 {
		return 0, 0, errors.New("none arrived")
	}
	return float64(n) * wirePayload * 8 / 1e6 / took, (usage(pid).cpu - before.cpu) / took, nil
}

// readFrames reads until the link is closed, and tells of each batch.
func readFrames(l stacks.Link, got func(n int)) {
	bufs, sizes := make([][]byte, l.BatchSize()), make([]int, l.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, wireFrame+4)
	}
	for {
		n, err := l.Read(bufs, sizes)
		if err != nil {
			return
		}
		got(n)
	}
}
