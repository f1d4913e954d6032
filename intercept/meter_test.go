// SPDX-License-Identifier: Apache-2.0

// What a Meter says of a program's calls.

package intercept

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMeter counts the calls of a target by name and by what they were about.
func TestMeter(t *testing.T) {
	m := new(Meter)
	calls := 0
	h := func(c *Call) Action {
		if calls++; calls%2 == 0 {
			c.About("every other")
		}
		f, err := c.DupFD(int(int32(c.Args[0])))
		if err != nil {
			return Fail(Errno(err))
		}
		defer f.Close()
		return Return(1)
	}
	start(t, Config{Rules: onCall(h), Meter: m}, "fds").wait(t)
	var out bytes.Buffer
	if n, err := m.WriteTo(&out); err != nil || int(n) != out.Len() {
		t.Errorf("%d bytes of %d, %v", n, out.Len(), err)
	}
	line := regexp.MustCompile(`^[a-z0-9_]+\t(-|every other)\t(\d+)\t\d+\t\d+\t[\d.]+\t[\d.]+\n$`)
	seen := map[string]string{}
	for l := range strings.Lines(out.String()) {
		f := line.FindStringSubmatch(l)
		if f == nil {
			t.Fatalf("line %q", l)
		}
		seen[f[1]] = f[2]
	}
	if calls != 7 || seen["-"] != "4" || seen["every other"] != "3" {
		t.Errorf("%d calls:\n%s", calls, out.String())
	}
}

// TestCallName: names are those of the entry by which a call came.
func TestCallName(t *testing.T) {
	if got := callName(Native, unix.SYS_RECVMSG); got != "recvmsg" {
		t.Error(got)
	}
	if got := callName(Native, 100000); got != "100000" {
		t.Error(got)
	}
}
