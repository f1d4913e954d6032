// SPDX-License-Identifier: Apache-2.0

// What /dev/tty is.

package fsmod_test

import (
	"os/exec"
	"testing"
)

// TestTerminal opens /dev/tty without a controlling terminal, and with one that umrun has not.
func TestTerminal(t *testing.T) {
	const script = `
import errno, fcntl, os, pty, sys, termios
def tell(name):
    try: fd = os.open("/dev/tty", os.O_RDWR)
    except OSError as e: print(name, errno.errorcode[e.errno], flush=True); return
    os.write(fd, name.encode()); os.close(fd); print(name, "opened", flush=True)
sys.stdout.flush()
if os.fork() == 0:
    os.setsid(); tell("none")
    ours, its = pty.openpty(); other = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSCTTY, 0); tell("its own")
    print(os.read(ours, 100))
    for m in 0, 0o200, 0o666:
        os.fchmod(its, m); tell("with mode %o" % m)
    fcntl.ioctl(its, termios.TIOCNOTTY); tell("given up"); os._exit(0)
os.wait()
`
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip(err)
	}
	b, err := exec.Command(python, "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	dir, mounts := secretLab(t)
	if got := mountedIn(t, dir, mounts, python, "-c", script); got != string(b) {
		t.Errorf("got\n%swithout umrun\n%s", got, b)
	}
}
