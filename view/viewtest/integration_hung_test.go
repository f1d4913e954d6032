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
cd DIR/dst; cat a; PATIENCE; sh -c 'echo new >n; cat n; rm n'; ls
exit 7`
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for engine, patience := range map[string]string{"ns": ":", "trap": "sleep 11"} {
		args := []string{"unshare", "-m", viewtest.Target(t, "hungfuse", viewtest.Dynamic), dir + "/hung", viewtest.Binary(t), "-n", "none", "--fs-engine", engine, "-m", "bind:" + dir + "/src:" + dir + "/dst",
			"--", "sh", "-c", strings.NewReplacer("DIR", dir, "PATIENCE", patience).Replace(script)}
		r := w.HostCmd(ctx, args...).Result()
		if r.Status != 7 || r.Stdout != "source a\nnew\na\nsub\n" {
			t.Errorf("%s: %v", engine, r)
		}
		// By ns they are the kernel's calls.
		if told := strings.Contains(r.Stderr, "umrun: warning: a call waits for a file system that does not answer"); told != (engine == "trap") {
			t.Errorf("%s: told %t of those that wait:\n%s", engine, told, r.Stderr)
		}
	}
	w.NoStrays(t)
}
