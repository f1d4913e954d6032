// SPDX-License-Identifier: Apache-2.0

// Transcripts: target programs whose every line must be the same over the
// kernel's stack in a namespace and under umrun. What still differs is listed
// in differences_test.go, with its reason; a listed difference that is gone
// fails too.

package viewtest_test

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
)

// transcripts are the programs of testdata/targets with their arguments; the
// name of a case is its command line.
var transcripts = []string{
	"connect outcomes", "connect arguments tcp4", "connect arguments tcp6", "connect arguments udp4", "connect arguments udp6",
	"connect sndtimeo", "connect syncnt", "connect bound",
	"stream ends 4", "stream ends 6", "stream resets 4", "stream resets 6", "stream flags 4", "stream flags 6",
	"stream data 4", "stream data 6", "stream stuck 4",
	"listen accept4", "listen accept6", "listen wrong4", "listen wrong6", "listen dual", "listen forked",
	"udp unconnected 4", "udp unconnected 6", "udp connected 4", "udp connected 6", "udp messages 4", "udp messages 6", "udp local 4", "udp local 6",
	"options tcp4", "options tcp6", "options udp4", "options udp6", "options connected4", "options connected6", "options sockets",
	"ping", "pass dup 4", "pass fork 4", "pass rights 4", "pass threads 4", "pass dup 6",
	"badptr",
	"signals eintr", "signals restart", "signals storm", "signals stop",
}

func init() {
	for _, mode := range []string{"epoll-lt", "epoll-et", "poll", "select"} {
		for _, what := range []string{"accepted", "refused", "reset", "timeout", "unreachable", "pending"} {
			for _, six := range []string{"4", "6"} {
				if six == "6" && what == "timeout" {
					continue // three seconds each
				}
				transcripts = append(transcripts, fmt.Sprintf("ready %s %s %s", mode, what, six))
			}
		}
	}
}

// labEnv tells a target where things are.
func labEnv(ip4, ip6 string) []string {
	return []string{
		"LAB_SELF4=" + ip4, "LAB_SELF6=" + ip6,
		"LAB_PEER4=" + viewtest.PeerIP4.String(), "LAB_PEER6=" + viewtest.PeerIP6.String(),
		"LAB_OTHER4=" + viewtest.OtherIP4.String(), "LAB_OTHER6=" + viewtest.OtherIP6.String(),
		"LAB_UNREACH4=" + viewtest.UnreachableIP4.String(), "LAB_UNREACH6=" + viewtest.UnreachableIP6.String(),
		"LAB_PROHIBIT4=" + viewtest.ProhibitedIP4.String(), "LAB_PROHIBIT6=" + viewtest.ProhibitedIP6.String(),
		"LAB_BLACKHOLE4=" + viewtest.BlackholeIP4.String(), "LAB_BLACKHOLE6=" + viewtest.BlackholeIP6.String(),
	}
}

// TestIntegrationTranscripts runs every case natively and under umrun.
func TestIntegrationTranscripts(t *testing.T) {
	viewtest.Need(t, "gcc")
	w := viewtest.New(t)
	native := w.Peers[0].Native(t)
	used := map[int]bool{}
	only := os.Getenv("LAB_CASE") // to look at one case by hand
	for _, line := range transcripts {
		if ok, _ := path.Match(only, line); only != "" && !ok {
			continue
		}
		t.Run(strings.ReplaceAll(line, " ", "-"), func(t *testing.T) {
			words := strings.Fields(line)
			words[0] = viewtest.Target(t, words[0], viewtest.Dynamic)
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()

			// Both at once: most of the time of either is waiting.
			c := native.Command(ctx, words...).AsUser(w.Home())
			c.Env = append(c.Env, labEnv("10.77.0.4", "fd77::4")...)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			defer c.Stop()
			client := w.Peers[0].Client(t)
			u := w.Umrun(t, client.Conf, words...)
			u.Env = append(u.Env, labEnv(client.IP4.String(), client.IP6.String())...)
			if err := u.Start(); err != nil {
				t.Fatal(err)
			}
			defer u.Stop()
			want := c.Result()
			if want.Status != 0 || strings.Contains(want.Stdout, "WRONG") || strings.Contains(want.Stdout, "cannot go on") {
				t.Fatalf("natively: %v", want)
			}
			if testing.Verbose() && only != "" {
				t.Logf("natively:\n%s", want.Stdout)
			}
			got := u.Result()
			if got.Status != 0 {
				t.Errorf("under umrun: %v", got)
			}
			compare(t, line, want.Stdout, got.Stdout, used)
		})
	}
	w.NoStrays(t)
	if only == "" && !t.Failed() {
		for i, d := range differences {
			if !used[i] && !d.sometimes {
				t.Errorf("listed, but no longer a difference: %+v", d)
			}
		}
	}
}

// compare holds two transcripts against each other, line by line.
func compare(t *testing.T, name, native, umrun string, used map[int]bool) {
	t.Helper()
	want, got := strings.Split(native, "\n"), strings.Split(umrun, "\n")
	if len(want) != len(got) {
		t.Errorf("natively %d lines, under umrun %d (-native +umrun):\n%s", len(want), len(got), cmp.Diff(native, umrun))
		return
	}
	for i := range want {
		if want[i] != got[i] && !listed(name, want[i], got[i], used) {
			t.Errorf("line %d\n  native %s\n  umrun  %s", i+1, want[i], got[i])
		}
	}
}

func listed(name, native, umrun string, used map[int]bool) bool {
	for i, d := range differences {
		if ok, _ := path.Match(d.where, name); ok && d.native == native && d.umrun == umrun {
			used[i] = true
			return true
		}
	}
	return false
}
