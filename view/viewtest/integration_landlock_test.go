// SPDX-License-Identifier: Apache-2.0

// Programs that put themselves into a sandbox without a network.

package viewtest_test

import (
	"context"
	"testing"

	"umrun/view/viewtest"
)

// landlockScript asks for a domain (landlock(7)) as programs do: with all that it knows, then
// with what the kernel says that it has; and tells what it can still do in it.
const landlockScript = `
import ctypes, errno, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def name(r): return errno.errorcode[ctypes.get_errno()] if r < 0 else "ok"
def create(size, *words, flags=0):
    return libc.syscall(444, ctypes.create_string_buffer(struct.pack("QQQQ", *words, *[0] * (4 - len(words)))), size, flags)
def can(f):
    try: f(); return "ok"
    except OSError as e: return errno.errorcode[e.errno]
abi = libc.syscall(444, 0, 0, 1)
print("network", abi >= 4)
print(name(libc.syscall(444, 0, 8, 1)), name(libc.syscall(444, 0, 0, 4)), name(create(0, 1)), name(create(8, 0)), name(create(24, 1)), name(create(32, 1, 0, 0, 1)), name(libc.syscall(444, 0, 16, 0)))
server = socket.create_server(("127.0.0.1", 0))
unix = socket.socket(socket.AF_UNIX); unix.bind("\0landlock%d" % os.getpid()); unix.listen()
def tries():
    return [can(lambda: socket.create_connection(server.getsockname())), can(lambda: socket.socket().bind(("127.0.0.1", 0))),
        can(lambda: socket.socket(socket.AF_UNIX).connect(unix.getsockname())), can(lambda: open("/etc/passwd"))]
print("none", tries())
def child(label, size, *words):
    sys.stdout.flush()
    if os.fork() == 0:
        rules = create(size, *words)
        said = name(rules)
        libc.prctl(38, 1, 0, 0, 0)
        print(label, said, name(libc.syscall(446, rules, 0)) if rules >= 0 else "", tries(), flush=True)
        os._exit(0)
    os.wait()
child("insists", 16, 0, 3)
child("insists, and files", 24, 4, 1, 0)
child("best effort", 24, 4, 3 if abi >= 4 else 0, 1)
child("files", 8, 4)
`

// TestIntegrationLandlock: who asks for rules about the network does not get a domain in which
// they do not hold, as no kernel before 6.7 gives one. Those about files and sockets of AF_UNIX
// hold.
func TestIntegrationLandlock(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "domains")
	w := viewtest.New(t)
	python := []string{"/usr/bin/python3", "-c", landlockScript}
	const errnos = "EINVAL EINVAL EINVAL ENOMSG ok E2BIG EFAULT\nnone ['ok', 'ok', 'ok', 'ok']\n"
	native := w.HostCmd(context.Background(), python...).Result()
	if want := "network True\n" + errnos +
		"insists ok ok ['EACCES', 'EACCES', 'ok', 'ok']\n" +
		"insists, and files ok ok ['ok', 'EACCES', 'ok', 'EACCES']\n" +
		"best effort ok ok ['EACCES', 'EACCES', 'EPERM', 'EACCES']\n" +
		"files ok ok ['ok', 'ok', 'ok', 'EACCES']\n"; native.Stdout != want {
		t.Fatalf("natively, not\n%s\n%v", want, native)
	}
	want := "network False\n" + errnos +
		"insists E2BIG  ['ok', 'ok', 'ok', 'ok']\n" +
		"insists, and files E2BIG  ['ok', 'ok', 'ok', 'ok']\n" +
		"best effort ok ok ['ok', 'ok', 'EPERM', 'EACCES']\n" +
		"files ok ok ['ok', 'ok', 'ok', 'EACCES']\n"
	for _, network := range []string{"none", "nat", "nat,stack=kernel", "host"} {
		for _, user := range []bool{false, true} {
			r := umrunAs(t, w, user, append([]string{"-q", "-n", network, "--"}, python...)...).Result()
			if r.Stdout != want || r.Stderr != "" {
				t.Errorf("-n %s, user %v:\n%v\nnot\n%s", network, user, r, want)
			}
		}
	}
	w.NoStrays(t)
}
