// SPDX-License-Identifier: Apache-2.0

// What a view of files costs: programs that do little but look at files, natively, in
// a view by either engine, under a supervisor that does nothing (bare.go), and under proot
// and umvu (View-OS), where they are installed.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	treeDirs  = 100
	treeFiles = 40 // in each
	units     = 24 // of the C project
)

// A load is a program that looks at files; sh runs it in the tree.
type load struct{ name, script string }

var loads = []load{
	{"find, stat of each, 5 times", "for i in 1 2 3 4 5; do find tree -size +1000 -newer tree/d0/f0; done"},
	{"git status, 5 times", "cd tree && for i in 1 2 3 4 5; do git status --porcelain; done"},
	{"make, a project in C", "cd c && make -s clean && make -s -j2"},
	{"Chromium without its sandbox, to the end of a page", "rm -rf profile && chromium --headless --no-sandbox --disable-gpu --user-data-dir=$PWD/profile --dump-dom file://$PWD/page.html >/dev/null 2>&1"},
}

// stopwatch is the agent of a load: it runs a script in a directory, and tells how many
// seconds it took. What starts and ends a view is not in it.
func stopwatch(args []string) int {
	cmd := exec.Command("/bin/sh", "-c", args[1])
	cmd.Dir = args[0]
	cmd.Stderr = os.Stderr
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+args[1]+":", err)
		return 1
	}
	fmt.Println(time.Since(begin).Seconds())
	return 0
}

// A filesSide is a way to have the tree at another place.
type filesSide struct {
	name string
	argv []string // SRC and DST stand for the places
	at   string
}

// files measures the loads on every side, in interleaved rounds; what counts is the
// median of the ratios to the native run of the same round.
func (b *bench) files(ctx context.Context) error {
	dir := filepath.Join(b.w.dir, "files")
	src, dst, traps := filepath.Join(dir, "src"), filepath.Join(dir, "dst"), filepath.Join(dir, "traps")
	if err := errors.Join(os.Chmod(b.w.dir, 0o711), os.MkdirAll(src, 0o755), os.Mkdir(dst, 0o755), fileTree(src)); err != nil {
		return err
	}
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, browserUser, browserUser))
	}); err != nil {
		return err
	}
	if _, err := b.script(ctx, dir, nil, src, "cd tree && git init -q && git add . && git -c user.name=a -c user.email=a@b commit -qm all"); err != nil {
		return err
	}
	umrun := []string{b.umrun, "-q", "-n", "host", "--no-proc", "-m", "bind:" + src + ":" + dst}
	sides := []filesSide{
		{"native", nil, src},
		{"ns", append(umrun[:len(umrun):len(umrun)], "--fs-engine", "ns", "--"), dst},
		{"trap", append(umrun[:len(umrun):len(umrun)], "--fs-engine", "trap", "--"), dst},
		{"bare", []string{b.self, "bare"}, src},
	}
	if proot, err := exec.LookPath("proot"); err == nil {
		sides = append(sides, filesSide{"proot", []string{proot, "-b", src + ":" + dst}, dst})
	}
	if umvu, err := exec.LookPath("umvu"); err == nil {
		bin := filepath.Dir(umvu)
		sides = append(sides, filesSide{"umvu", []string{umvu, "/bin/sh", "-c",
			`"$0/vu_insmod" vufs && "$0/vumount" -t vufs "$1" "$2" && shift 2 && exec "$@"`, bin, src, dst}, dst})
	}
	var lines [][2]string
	for _, l := range loads {
		took := make([][]float64, len(sides))
		failed := map[string]error{} // what others than umrun could not do
		trapped := map[string]string{}
		for round := range b.rounds + 1 {
			for i := range sides {
				k := (i + round) % len(sides)
				if failed[sides[k].name] != nil {
					continue
				}
				argv := sides[k].argv
				count := round == 0 && k > 0 && argv[0] == b.umrun // which takes time
				if count {
					argv = slices.Insert(slices.Clone(argv), 1, "--traps", traps)
				}
				s, err := b.script(ctx, dir, argv, sides[k].at, l.script)
				if err != nil && k > 0 && sides[k].argv[0] != b.umrun {
					failed[sides[k].name] = err
					continue
				} else if err != nil {
					return fmt.Errorf("%s, %s: %w", l.name, sides[k].name, err)
				}
				if round > 0 { // the first has a cold cache
					took[k] = append(took[k], s)
				}
				if count {
					trapped[sides[k].name] = pathTraps(traps)
				}
			}
		}
		overhead := map[string]float64{}
		for k, side := range sides {
			var ms, ratio []float64
			if err := failed[side.name]; err != nil {
				lines = append(lines, [2]string{l.name + ", " + side.name, "failed: " + err.Error()})
				continue
			}
			for i := range took[k] {
				ms = append(ms, took[k][i]*1e3)
				ratio = append(ratio, took[k][i]/took[0][i])
			}
			text := spread(ms) + " ms"
			if k > 0 {
				text += ", ratio " + spread(ratio)
				overhead[side.name] = median(ratio) - 1
			}
			if side.name == "ns" {
				text += fmt.Sprintf(" (target 1.05: %s)", verdict(median(ratio) <= 1.05))
			}
			if t := trapped[side.name]; t != "" {
				text += ", path traps " + t
			}
			lines = append(lines, [2]string{l.name + ", " + side.name, text})
		}
		if over, ok := overhead["proot"]; ok {
			lines = append(lines, [2]string{"  overhead of trap to proot's", fmt.Sprintf("%.0f %% to %.0f %%: %.2f (target 0.25: %s)",
				overhead["trap"]*100, over*100, overhead["trap"]/over, verdict(overhead["trap"] <= over/4))},
				[2]string{"  overhead to proot's of traps that do nothing", fmt.Sprintf("%.2f", overhead["bare"]/over)})
		}
	}
	b.report.facts(fmt.Sprintf("Files in a view: %d files, %d units of C; without the start of the view", treeDirs*treeFiles, units), lines...)
	return nil
}

func verdict(ok bool) string {
	if ok {
		return "ok"
	}
	return "MISSED"
}

// script runs a script in a directory of a side and returns what it took, in seconds.
func (b *bench) script(ctx context.Context, home string, argv []string, dir, script string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*grace)
	defer cancel()
	argv = append(argv[:len(argv):len(argv)], b.self, "stopwatch", dir, script)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home, "XDG_RUNTIME_DIR="+home, "PATH=/usr/local/bin:/usr/bin:/bin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: browserUser, Gid: browserUser}}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := b.w.u.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return 0, fmt.Errorf("%q: %w\n%s", argv, err, stderr.String())
	}
	words := strings.Fields(out.String())
	if len(words) == 0 {
		return 0, fmt.Errorf("%q said nothing", argv)
	}
	return strconv.ParseFloat(words[len(words)-1], 64)
}

// pathTraps counts the calls in a report of --traps that are about a path, which is all
// but those about sockets.
func pathTraps(file string) string {
	all, err := readTraps(file)
	if err != nil {
		return "0"
	}
	n := 0
	for _, t := range all {
		switch t.call {
		case "socket", "connect", "bind", "listen", "accept", "accept4", "sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg",
			"getsockopt", "setsockopt", "getsockname", "getpeername", "shutdown", "ioctl", "socketpair", "landlock_create_ruleset":
		default:
			n += t.calls
		}
	}
	return strconv.Itoa(n)
}

// fileTree makes what the loads look at.
func fileTree(at string) error {
	var errs []error
	write := func(name, content string) {
		path := filepath.Join(at, name)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
	}
	for d := range treeDirs {
		for f := range treeFiles {
			write(fmt.Sprintf("tree/d%d/f%d", d, f), fmt.Sprintf("file %d of %d\n", f, d))
		}
	}
	objects := ""
	for i := range units {
		objects += fmt.Sprintf(" u%d.o", i)
		write(fmt.Sprintf("c/u%d.c", i), fmt.Sprintf("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n#include \"u.h\"\n"+
			"int f%d(int n) { char s[40]; snprintf(s, sizeof s, \"%%d\", n); return strlen(s); }\n", i))
	}
	write("c/u.h", "#include <sys/types.h>\n#include <sys/stat.h>\n")
	write("c/main.c", "#include \"u.h\"\nint main(void) { return 0; }\n")
	write("c/Makefile", "prog: main.o"+objects+"\n\tcc -o $@ $^\n%.o: %.c u.h\n\tcc -c -o $@ $<\nclean:\n\trm -f *.o prog\n")
	write("page.html", "<!doctype html><title>bench</title><p>done</p>\n")
	return errors.Join(errs...)
}
