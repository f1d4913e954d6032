// SPDX-License-Identifier: Apache-2.0

// Random sequences of calls with paths (testdata/steps), over several mounts at once: natively on
// the kernel's own mounts, and in a view by each engine, held against that line by line.

package viewtest_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// A stepsRun is a seed on the mounts of a layout of testdata/steps/layout.c.
type stepsRun struct {
	layout string
	seed   uint64
	steps  int
	user   string
}

// keptSteps are runs that have found something, or have many mounts.
var keptSteps = []stepsRun{
	{"many", 100, 250, "root"}, {"many", 104, 250, "root"}, {"many", 210, 250, "user"}, {"nested", 306, 60, "user"},
	{"nested", 310, 250, "root"}, {"binds", 12, 250, "user"}, {"all", 407, 150, "user"}, {"all", 413, 250, "root"},
}

var stepsLayouts = []string{"many", "nested", "binds", "all"}

// TestIntegrationSteps makes the kept runs, and after them, for LAB_STEPS_TIME (0s), runs of
// LAB_STEPS_COUNT (300) steps from the seed LAB_STEPS_SEED (the time) on.
func TestIntegrationSteps(t *testing.T) {
	viewtest.Need(t, "root")
	w := viewtest.New(t)
	program := viewtest.Steps(t)
	viewtest.Binary(t) // before any deadline
	t.Run("kept", func(t *testing.T) {
		for _, r := range keptSteps {
			stepsAgree(t, w, program, r)
		}
	})
	most, err := time.ParseDuration(cmp.Or(os.Getenv("LAB_STEPS_TIME"), "0s"))
	if err != nil {
		t.Fatal(err)
	}
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	seed, steps := number("LAB_STEPS_SEED", int(time.Now().Unix())), number("LAB_STEPS_COUNT", 300)
	runs := 0
	for end := time.Now().Add(most); time.Now().Before(end) && !t.Failed(); runs += 8 {
		t.Run("more", func(t *testing.T) {
			for i := runs; i < runs+8; i++ {
				stepsAgree(t, w, program, stepsRun{stepsLayouts[i/2%len(stepsLayouts)], uint64(seed + i), steps, posixUsers[i%2]})
			}
		})
	}
	if runs > 0 {
		fmt.Printf("steps: %d runs of %d from the seed %d on\n", runs, steps, seed)
	}
}

// stepsAgree makes a run natively and by both engines.
func stepsAgree(t *testing.T, w *viewtest.World, program string, r stepsRun) {
	t.Run(fmt.Sprintf("%s/%s/%d", r.layout, r.user, r.seed), func(t *testing.T) {
		id := 0
		if r.user == "user" {
			id = viewtest.UID
		}
		t.Parallel()
		made := func(name string) string { // the names are equally long, as what has them in it is
			place := filepath.Join(w.Dir(), fmt.Sprintf("%s-%s-%.6s-%d", r.layout, r.user, name+"-----", r.seed))
			if err := errors.Join(os.Mkdir(place, 0o755), os.Chown(place, id, id)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(place) })
			if res := w.HostCmd(t.Context(), program, "-make", r.layout, place, strconv.Itoa(id)).Result(); res.Status != 0 {
				t.Fatal(res)
			}
			return place
		}
		how := []string{strconv.FormatUint(r.seed, 10), strconv.Itoa(r.steps)}
		args := append([]string{program, "-native", r.layout, made("native"), strconv.Itoa(id)}, how...)
		native := w.HostCmd(t.Context(), args...).Result()
		if native.Status != 0 || strings.Count(native.Stdout, "\n") < r.steps/2 {
			t.Fatal(native)
		}
		for _, engine := range posixEngines {
			place := made(engine)
			flags := []string{"-q", "-n", "none", "--fs-engine", engine}
			for m := range strings.Lines(w.HostCmd(t.Context(), program, "-flags", r.layout, place).Result().Stdout) {
				flags = append(flags, "-m", strings.TrimSuffix(m, "\n"))
			}
			u := w.UmrunFlags(t, append(append(flags, "--", program, "-run", r.layout, place), how...)...)
			if id != 0 {
				u.AsUser(w.Home())
			}
			res := u.Result()
			if res.Status != 0 {
				t.Errorf("%s: %v", engine, res)
			}
			stepsDiffer(t, engine, native.Stdout, res.Stdout)
		}
	})
}

// stepsDiffer tells of the first line in which two runs differ, with those before it.
func stepsDiffer(t *testing.T, engine, native, umrun string) {
	t.Helper()
	a, b := slices.Collect(strings.Lines(native)), slices.Collect(strings.Lines(umrun))
	for i := range max(len(a), len(b)) {
		is, want := "nothing\n", "nothing\n"
		if i < len(a) {
			want = a[i]
		}
		if i < len(b) {
			is = b[i]
		}
		if is != want {
			t.Errorf("%s, after\n%s\nnative: %sumrun:  %s", engine, strings.Join(a[max(i-12, 0):i], ""), want, is)
			return
		}
	}
}
