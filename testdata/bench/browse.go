// SPDX-License-Identifier: Apache-2.0

// A page in a browser, whose processes talk to each other over AF_UNIX: what of the
// time is the supervisor's, for calls that are none of its business.

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	pageObjects = 200
	pageSize    = 4 << 10 // bytes of an object

	// browserUser runs the browser: as root it would have no sandbox. The number is
	// nobody's.
	browserUser = 54321
)

// A picture of one pixel; what follows it is ignored.
var picture = append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"+
	"\x00\x00\x00\rIDATx\x9cc\xfc\xcf\xc0P\x0f\x00\x04\x85\x01\x80\x84\xa9\x8c!\x00\x00\x00\x00IEND\xaeB`\x82"), make([]byte, pageSize)...)[:pageSize]

// pages serves the page and its objects, none of which may be kept.
func pages(l net.Listener) {
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if r.URL.Path != "/" {
			w.Header().Set("Content-Type", "image/png")
			w.Write(picture)
			return
		}
		var b strings.Builder
		b.WriteString("<!doctype html><title>bench</title>")
		for i := range pageObjects {
			fmt.Fprintf(&b, `<img src="/%s/%d">`, r.URL.RawQuery, i)
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, b.String())
	}))
}

// traps is a line of --traps.
type traps struct {
	call, about string
	calls       int
	total, cpu  float64 // µs
	p50         float64 // µs
}

// readTraps reads what --traps wrote.
func readTraps(file string) (all []traps, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 7 || f[0] == "call" {
			continue
		}
		t := traps{call: f[0], about: f[1]}
		t.calls, _ = strconv.Atoi(f[2])
		t.total, _ = strconv.ParseFloat(f[3], 64)
		t.cpu, _ = strconv.ParseFloat(f[4], 64)
		t.p50, _ = strconv.ParseFloat(f[5], 64)
		all = append(all, t)
	}
	if len(all) == 0 {
		return nil, errors.New("--traps wrote nothing")
	}
	return all, nil
}

// unixTraps sums the traps of AF_UNIX sockets; p50 is the median of the commonest.
func unixTraps(all []traps) (sum traps) {
	most := 0
	for _, t := range all {
		if t.about != "AF_UNIX" {
			continue
		}
		sum.calls += t.calls
		sum.total += t.total
		sum.cpu += t.cpu
		if t.calls > most {
			most, sum.p50 = t.calls, t.p50
		}
	}
	return sum
}

// page measures loads of a page over the tunnel, natively and under umrun. A browser
// that loads nothing tells what starting and ending it cost.
func (b *bench) page(ctx context.Context) error {
	dir := filepath.Join(b.w.dir, "browser")
	if err := os.Chmod(b.w.dir, 0o711); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, browserUser, browserUser)); err != nil {
		return err
	}
	driver := filepath.Join(b.w.dir, "driver")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", driver, "umrun/view/viewtest/browser").CombinedOutput(); err != nil {
		return fmt.Errorf("build the browser's driver: %w\n%s", err, out)
	}
	conf := filepath.Join(dir, "umrun.conf")
	text, err := os.ReadFile(b.w.conf)
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(conf, text, 0o600), os.Chown(conf, browserUser, browserUser)); err != nil {
		return err
	}
	loads := 5
	if b.quick {
		loads = 1
	}
	run := func(ns *namespace, name string, n int, argv ...string) (took []float64, err error) {
		return b.browse(ctx, ns, dir, append(argv, driver, "-profile", filepath.Join(dir, name)), n)
	}
	report := func(name string) string { return filepath.Join(dir, name+".traps") }
	under := func(name string) []string {
		return []string{b.umrun, "-q", "-n", conf, "--traps", report(name), "--"}
	}
	if _, err := run(b.w.u, "empty", 0, under("empty")...); err != nil {
		return err
	}
	ours, err := run(b.w.u, "loads", loads, under("loads")...)
	if err != nil {
		return err
	}
	native, err := run(b.w.n, "native", loads)
	if err != nil {
		return err
	}
	empty, err := readTraps(report("empty"))
	if err != nil {
		return err
	}
	full, err := readTraps(report("loads"))
	if err != nil {
		return err
	}
	all, none := unixTraps(full), unixTraps(empty)
	every := float64(loads + 1) // with the one that is not told
	calls, total, cpu := float64(all.calls-none.calls)/every, (all.total-none.total)/every, (all.cpu-none.cpu)/every
	var lines [][2]string
	lines = append(lines,
		[2]string{"load, umrun", spread(ours) + " ms"},
		[2]string{"load, native", spread(native) + " ms"},
		[2]string{"AF_UNIX traps of a load", fmt.Sprintf("%.0f, %.1f ms of the supervisor's processor time: %.2f %% of the load (target 3)", calls, cpu/1e3, cpu/10/median(ours))},
		[2]string{"on the clock", fmt.Sprintf("%.1f ms, %.2f %%", total/1e3, total/10/median(ours))},
		[2]string{"one of them", fmt.Sprintf("p50 %.2f µs in the supervisor", all.p50)})
	for i, t := range full {
		if i < 8 {
			lines = append(lines, [2]string{"  " + t.call + " " + t.about, fmt.Sprintf("%d in all, %.1f ms (processor %.1f), p50 %.2f µs", t.calls, t.total/1e3, t.cpu/1e3, t.p50)})
		}
	}
	b.report.facts(fmt.Sprintf("A page of %d objects in Chromium, over the tunnel", pageObjects), lines...)
	return nil
}

// browse starts a browser and loads the page n times; it returns what each load took,
// in milliseconds. The first, with a cold renderer, is not told.
func (b *bench) browse(ctx context.Context, ns *namespace, dir string, argv []string, n int) ([]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*grace)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir, "XDG_RUNTIME_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: browserUser, Gid: browserUser}}
	var printed bytes.Buffer
	cmd.Stderr = &printed
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := ns.start(cmd); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	answer := func() (time.Duration, error) {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		var a struct {
			Error string
			Took  time.Duration
		}
		if err := json.Unmarshal(line, &a); err != nil {
			return 0, err
		}
		if a.Error != "" {
			return 0, errors.New(a.Error)
		}
		return a.Took, nil
	}
	var took []float64
	_, err = answer() // it has started
	for i := 0; err == nil && n > 0 && i <= n; i++ {
		fmt.Fprintf(in, "open http://%s:%d/?%d\n", peerAddr, portPage, i)
		var t time.Duration
		if t, err = answer(); err == nil && i > 0 {
			took = append(took, t.Seconds()*1e3)
		}
	}
	in.Close()
	if e := cmd.Wait(); err != nil || e != nil {
		return nil, fmt.Errorf("browser: %w\n%s", errors.Join(err, e), printed.String())
	}
	return took, nil
}
