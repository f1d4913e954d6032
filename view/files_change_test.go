// SPDX-License-Identifier: Apache-2.0

// Tests of what is kept for mounts that come and go.

package view

import (
	"context"
	"errors"
	"log/slog"
	"testing"
)

// closing counts how often it is closed.
type closing struct {
	times int
	err   error
}

func (c *closing) Close() error {
	c.times++
	return c.err
}

// TestKeepUntil: what serves a mount is closed once, when the mount has gone or the view ends, and
// nobody waits any more for one that stays.
func TestKeepUntil(t *testing.T) {
	life, end := context.WithCancel(t.Context())
	var k kernelMounts
	gone, stays := make(chan struct{}), make(chan struct{})
	first, second := new(closing), &closing{err: errors.New("it is needed")}
	s := newProgramServer("0:1", closers{first})
	k.keepUntil(life, gone, s, slog.New(slog.DiscardHandler))
	k.keepUntil(life, stays, newProgramServer("0:2", closers{second}), slog.New(slog.DiscardHandler))
	close(gone)
	<-s.closed
	if all := len(k.programs()); all < 1 || all > 2 {
		t.Errorf("%d are kept", all)
	}
	end()
	if err := k.Close(); !errors.Is(err, second.err) {
		t.Errorf("closed: %v", err)
	}
	if first.times != 1 || second.times != 1 || len(k.programs()) != 0 {
		t.Errorf("closed %d and %d times, %d are left", first.times, second.times, len(k.programs()))
	}
}
