// SPDX-License-Identifier: Apache-2.0

// Tests of launching, ending and reaping.

package intercept

import (
	"testing"
)

func add1000(c *Call) Action { return Return(1000 + int64(int32(c.Args[0]))) }

func TestCalls(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"call", "call: 1000\n"},
		{"threads", "bad: 0\n"},
		{"fork", "bad: 0\n"},
		{"vfork", "call: 1008\nstatus: 0\n"},
		{"exec", "call: 1009\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, Config{Rules: onCall(add1000)}, tt.name)
			ws, out := r.wait(t)
			if ws != 0 || out != tt.want {
				t.Errorf("status %#x, output %q, want %q", ws, out, tt.want)
			}
		})
	}
}
