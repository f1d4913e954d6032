// SPDX-License-Identifier: Apache-2.0

// Other processes of the program's user: they are no way out of a view.

package viewtest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"umrun/view/viewtest"
)

// shutWays are the ways into a process that the target tries, and what they say in a view of one
// that is outside. The others are open to everybody.
const shutWays = `pidfd_getfd: EPERM
process_vm_readv: EPERM
process_vm_writev: EPERM
kcmp: EPERM
get_robust_list: EPERM
its network namespace: EACCES
its mount namespace: EACCES
open mem: EACCES
open task/%d/mem: EACCES
open fd/40: EACCES
readlink fd/40: EACCES
stat fd/40: EACCES
read fdinfo/40: EACCES
open cwd: EACCES
open cwd/held: EACCES
stat cwd: EACCES
readlink cwd: EACCES
open root: EACCES
open root/etc/passwd: EACCES
readlink root: EACCES
open exe: EACCES
readlink exe: EACCES
open ns/net: EACCES
readlink ns/mnt: EACCES
read io: EACCES
read syscall: EPERM
read environ: EACCES
read maps: EACCES
read auxv: EACCES
openat mem: EACCES
openat fd/40: EACCES
open mem by O_PATH: EACCES
PTRACE_SEIZE: EPERM
PTRACE_ATTACH: EPERM
`

// refusals are the errnos that refuse.
var refusals = regexp.MustCompile(`: (EPERM|EACCES)\n`)

// TestIntegrationNeighbour: a program that can use a process of its user natively, by each
// way that there is, cannot from within a view, by none of them; what it starts itself is
// its own as ever, and signals go everywhere.
func TestIntegrationNeighbour(t *testing.T) {
	viewtest.Need(t, "gcc", "domains")
	w := viewtest.New(t)
	bin := viewtest.Target(t, "neighbour", viewtest.Dynamic)
	for _, user := range []bool{false, true} {
		dir, err := os.MkdirTemp(w.Dir(), "neighbour-")
		if err != nil {
			t.Fatal(err)
		}
		as := func(c *viewtest.Cmd) *viewtest.Cmd {
			if user {
				c = c.AsUser(w.Home())
			}
			return c
		}
		if user {
			give(t, dir)
		}
		victim := start(t, as(w.HostCmd(context.Background(), bin, "serve", dir)))
		awaitOutput(t, victim, "\n")
		try := append([]string{bin, "try"}, strings.Fields(victim.Output())...)

		open := as(w.HostCmd(context.Background(), try...)).Result().Stdout
		if refusals.MatchString(open) {
			t.Fatalf("natively, as the user %v:\n%s", user, open)
		}
		want := open
		for line := range strings.Lines(shutWays) {
			way, _, _ := strings.Cut(line, ": ")
			shut := strings.Replace(want, way+": ok\n", line, 1)
			if shut == want {
				t.Fatalf("natively, as the user %v, %s is no way in:\n%s", user, way, open)
			}
			want = shut
		}
		for _, engine := range []string{"", "ns", "trap"} {
			for _, network := range []string{"none", "host"} {
				t.Run(fmt.Sprintf("user=%v/%s/%s", user, engine, network), func(t *testing.T) {
					view := []string{"-q", "-n", network, "--"}
					if engine != "" {
						view = append([]string{"-m", "tmpfs:/opt/umrun-lab-neighbour", "--fs-engine", engine}, view...)
					}
					want := want
					if engine == "trap" {
						want = strings.Replace(want, "read syscall: EPERM", "read syscall: EACCES", 1) // at its open
					} else if !user {
						// CAP_PERFMON is enough for these.
						for _, file := range []string{"environ", "maps", "auxv"} {
							want = strings.Replace(want, "read "+file+": EACCES", "read "+file+": ok", 1)
						}
					}
					r := umrunAs(t, w, user, append(view, try...)...).Result()
					if d := cmp.Diff(want, r.Stdout); d != "" {
						t.Errorf("ways into a process outside (-want +got):\n%s\n%s", d, r.Stderr)
					}
					r = umrunAs(t, w, user, append(view, bin, "child", dir)...).Result()
					if got := strings.ReplaceAll(r.Stdout, "signalled\n", ""); got != open {
						t.Errorf("ways into a child of its own:\n%v", r)
					}
				})
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "held")); err != nil {
			t.Error(err)
		}
	}
}

// TestIntegrationNeighbourElsewhere: what is shut is so by whatever name procfs has.
func TestIntegrationNeighbourElsewhere(t *testing.T) {
	viewtest.Need(t, "root", "unshare", "domains")
	w := viewtest.New(t)
	dir := filepath.Join(w.Dir(), "net", "attr")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	outside := start(t, w.HostCmd(context.Background(), "sleep", "60"))
	look := fmt.Sprintf("cd %s/%d && for f in environ maps net/dev; do head -c 1 $f >/dev/null 2>&1; echo $?; done", dir, outside.Process.Pid)
	elsewhere := func(args ...string) string {
		mounted := []string{"unshare", "-m", "--propagation", "private", "sh", "-c", `mount -t proc proc "$0" && exec "$@"`, dir}
		return w.HostCmd(context.Background(), append(mounted, args...)...).Result().Stdout
	}
	if got, want := elsewhere("sh", "-c", look), "0\n0\n0\n"; got != want {
		t.Fatalf("natively %q", got)
	}
	u := umrunAs(t, w, false, "-q", "-n", "none", "--fs-engine", "trap", "-m", "tmpfs:/opt/umrun-lab-neighbour", "--", "sh", "-c", look)
	if got, want := elsewhere(u.Args...), "1\n1\n0\n"; got != want {
		t.Errorf("in a view %q, want %q", got, want)
	}
}
