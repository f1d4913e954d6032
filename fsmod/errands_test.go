// SPDX-License-Identifier: Apache-2.0

// Errands: who waits, who leaves, and what ends then.

package fsmod

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestErrands(t *testing.T) {
	var e Errands
	begun, end, ran := make(chan context.Context, 1), make(chan error), 0
	work := func(ctx context.Context) error {
		ran++
		begun <- ctx
		return <-end
	}
	first, leave := context.WithCancel(context.Background())
	answers := make(chan error, 3)
	do := func(ctx context.Context) { answers <- e.Begin("x", work)(ctx) }
	waiting := func() int {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.byID["x"].waiting
	}
	go do(first)
	ctx := <-begun
	go do(t.Context())
	for waiting() != 2 {
	}
	leave()
	if err := <-answers; !errors.Is(err, unix.EINTR) {
		t.Errorf("who left got %v", err)
	}
	if ctx.Err() != nil {
		t.Error("it was ended while somebody waited")
	}
	end <- unix.ENOSPC
	if err := <-answers; !errors.Is(err, unix.ENOSPC) || ran != 1 || e.Busy("x") {
		t.Errorf("got %v, ran %d times, under way: %v", err, ran, e.Busy("x"))
	}

	second, leave := context.WithCancel(context.Background())
	go do(second)
	ctx = <-begun
	leave()
	if err := <-answers; !errors.Is(err, unix.EINTR) {
		t.Errorf("who left got %v", err)
	}
	<-ctx.Done() // nobody waits, and who comes now is told when it has ended
	late := e.Begin("x", work)
	end <- unix.EINTR
	if err := late(t.Context()); err != nil {
		t.Errorf("who came late got %v", err)
	}
	go do(t.Context())
	<-begun
	end <- nil
	if err := <-answers; err != nil || ran != 3 {
		t.Errorf("got %v, ran %d times", err, ran)
	}
	e.Wait()
}
