// SPDX-License-Identifier: Apache-2.0

// Processes that are killed while umrun has them execute a program.

package viewtest_test

import (
	"testing"

	"umrun/view/viewtest"
)

// TestIntegrationKilledExec: their parent hears of it, and umrun does not complain.
func TestIntegrationKilledExec(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	script := w.File(t, "killed.py", readFile(t, "testdata/killed.py"))
	dir := mountTree(t, w, false)
	r := umrunAs(t, w, false, "-q", "-n", "none", "--fs-engine", "trap", "-m", "bind:"+dir+"/src:"+dir+"/dst", "--",
		"sh", "-c", "cd "+dir+"/dst && exec /usr/bin/python3 "+script).Result()
	if r.Status != 0 || r.Stdout != "all\n" || r.Stderr != "" {
		t.Error(r)
	}
	w.NoStrays(t)
}
