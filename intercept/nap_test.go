// SPDX-License-Identifier: Apache-2.0

// Tests of short sleeps.

package intercept

import (
	"testing"
	"time"
)

func TestNapper(t *testing.T) {
	n, err := newNapper()
	if err != nil {
		t.Fatal(err)
	}
	best := time.Hour
	for range 50 {
		start := time.Now()
		n.sleep(200 * time.Microsecond)
		best = min(best, time.Since(start))
	}
	if best < 200*time.Microsecond || best > 900*time.Microsecond {
		t.Errorf("the shortest of 50 sleeps of 200 µs took %v", best)
	}
	ended := make(chan struct{})
	go func() {
		n.sleep(time.Hour)
		close(ended)
	}()
	time.Sleep(10 * time.Millisecond)
	n.close()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("close does not end a sleep")
	}
	n.sleep(time.Hour) // returns at once
}
