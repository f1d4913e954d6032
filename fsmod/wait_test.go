// SPDX-License-Identifier: Apache-2.0

// Opens that wait.

package fsmod_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestCrowd opens a FIFO that nobody writes to by more threads than may wait, beside which other
// programs go on, and then has them come to their end.
func TestCrowd(t *testing.T) {
	dir, mounts := secretLab(t)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: 640, Max: was.Max} // as many descriptors as 320 of them would have
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	}()
	const script = `
import errno, os, resource, subprocess, sys, threading, time
d = sys.argv[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
os.mkfifo(d + "/fifo")
got = []
def opens():
    try: got.append(os.close(os.open(d + "/fifo", os.O_RDONLY)))
    except OSError as e: got.append(errno.errorcode[e.errno])
threads = [threading.Thread(target=opens) for _ in range(600)]
for t in threads: t.start()
end = time.time() + 20
while len(got) < 500 and time.time() < end: time.sleep(0.01)
print("refused", set(got), 500 < len(got) < 600)
print("beside", open(d + "/alias/f").read().strip(), subprocess.run(["cat", d + "/open/f"], capture_output=True).stdout)
refused = len(got)
while any(t.is_alive() for t in threads):
    try: os.close(os.open(d + "/fifo", os.O_WRONLY | os.O_NONBLOCK))
    except OSError as e:
        if e.errno != errno.ENXIO: raise
        time.sleep(0.01)
print("opened", got[refused:] == [None] * (600 - refused))
t = threading.Thread(target=opens); t.start(); os.open(d + "/fifo", os.O_WRONLY); t.join()
print("later", got[-1])
`
	want := "refused {'ENFILE'} True\nbeside open b'open\\n'\nopened True\nlater None\n"
	if got := mountedIn(t, dir, mounts, "python3", "-c", script, dir); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
