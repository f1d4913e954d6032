// SPDX-License-Identifier: Apache-2.0

// A file system that does not answer, beside the mounts of a view.

package viewtest_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// TestIntegrationHungFiles: who asks a server that is silent waits, and others do not, nor does
// the end of the view.
func TestIntegrationHungFiles(t *testing.T) {
	viewtest.Need(t, "root", "unshare")
	w := viewtest.New(t)
	dir := mountTree(t, w, false)
	if err := os.Mkdir(dir+"/hung", 0o755); err != nil {
		t.Fatal(err)
	}
	const script = `
for f in hung/a hung/b/c ; do cat DIR/$f & done
ls DIR/hung & (cd DIR/hung) &
sleep 0.2
mount -t tmpfs none DIR/dst/sub & # which has to wait for those
sleep 0.2
cd DIR/dst; cat a; sh -c 'echo new >n; cat n; rm n'; ls
exit 7`
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, engine := range []string{"ns", "trap"} {
		args := []string{"unshare", "-m", viewtest.Target(t, "hungfuse", viewtest.Dynamic), dir + "/hung", viewtest.Binary(t), "-q", "-n", "none", "--fs-engine", engine, "-m", "bind:" + dir + "/src:" + dir + "/dst",
			"--", "sh", "-c", strings.ReplaceAll(script, "DIR", dir)}
		r := w.HostCmd(ctx, args...).Result()
		if r.Status != 7 || r.Stdout != "source a\nnew\na\nsub\n" {
			t.Errorf("%s: %v", engine, r)
		}
	}
	w.NoStrays(t)
}
