# SPDX-License-Identifier: Apache-2.0
#
# What AF_UNIX sockets do with paths, in the directory that is the argument: one line for
# each thing tried, the same on every file system.
import os, socket, sys, errno, threading, array, struct, time
base = sys.argv[1]
os.chdir(base)
def name(f):
    try: return f()
    except OSError as e: return errno.errorcode[e.errno]
def server(path):
    s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(5); return s
def pair(s, to):
    c = socket.socket(socket.AF_UNIX); c.connect(to); a, peer = s.accept()
    c.send(b"hello"); got = a.recv(10)
    r = (got, a.getsockname() == s.getsockname(), c.getpeername() == s.getsockname(), peer)
    a.close(); c.close(); return r
p = base + "/sock"
s = server(p)
print("abs", s.getsockname() == p, pair(s, p), pair(s, "sock"), pair(s, "../" + os.path.basename(base) + "/./sock"))
print("mode", oct(os.stat(p).st_mode), os.stat(p).st_uid == os.geteuid())
print("again", name(lambda: server(p)), name(lambda: server(base)), name(lambda: server(base + "/none/sock")), name(lambda: server(p + "/x")))
os.symlink("sock", "link")
print("link", pair(s, "link"), name(lambda: server("link")))
fd = os.open(base, os.O_RDONLY)
print("procfd", pair(s, "/proc/self/fd/%d/sock" % fd))
s.close()
print("closed", name(lambda: pair(s, p)))
os.unlink(p)
print("gone", name(lambda: pair(s, p)))
os.umask(0o77)
r = server("rel")
print("rel", r.getsockname(), pair(r, "rel"), pair(r, base + "/rel"), oct(os.stat("rel").st_mode & 0o777))
os.umask(0o22)
open("file", "w").close()
print("file", name(lambda: pair(r, "file")), name(lambda: pair(r, base)), name(lambda: pair(r, "file/x")))
print("bound twice", name(lambda: r.bind("other")), os.path.exists("other"))
# where something was before
if os.path.exists("a"): os.unlink("a")
print("removed", name(lambda: r.bind("a")), os.path.exists("a"), name(lambda: pair(server("a"), "a")), name(lambda: server("a")))
# deeper than a path can tell
for _ in range(25): os.mkdir("d" * 200); os.chdir("d" * 200)
deep = server("s"); print("deep", deep.getsockname(), pair(deep, "s"), name(lambda: server("s")), name(lambda: deep.bind("t")), os.listdir("."))
os.chdir(base)
# long names
long = "x" * 100
print("long", name(lambda: pair(server(long), long)), name(lambda: pair(server("./" + "y" * 105), "y" * 105)))
# datagrams
a = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); a.bind(base + "/from")
b = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); b.bind("to")
b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
print("sendto", a.sendto(b"one", "to"), b.recvfrom(10)[0])
rr, w = os.pipe()
print("sendmsg", a.sendmsg([b"t", b"wo"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [w]))], 0, base + "/to"))
data, anc, fl, src = b.recvmsg(10, 1000)
got = {t: d for l, t, d in anc}
os.write(struct.unpack("i", got[socket.SCM_RIGHTS])[0], b"through")
pid, uid, gid = struct.unpack("iii", got[socket.SCM_CREDENTIALS])
print("received", data, os.read(rr, 10), uid == os.getuid(), gid == os.getgid())
print("reply", b.sendto(b"back", src), a.recvfrom(10)[0])
print("none", name(lambda: a.sendto(b"x", "none")), name(lambda: a.sendto(b"x", "rel")), name(lambda: a.sendto(b"x", "file")))
a.connect("to"); print("connected", a.send(b"three"), b.recv(10), a.getpeername())
big = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
print("big", name(lambda: big.sendto(b"x" * 1000000, "to")), len(name(lambda: big.sendto(b"x" * 100000, "to") and b.recv(200000))))
b.close(); print("refused", name(lambda: big.sendto(b"x", "to")))
# a full backlog: a blocking connect waits
f = socket.socket(socket.AF_UNIX); f.bind("full"); f.listen(0)
c1 = socket.socket(socket.AF_UNIX); c1.connect("full")
c2 = socket.socket(socket.AF_UNIX); c2.setblocking(False); print("full", name(lambda: c2.connect("full")))
c3 = socket.socket(socket.AF_UNIX); done = []
t = threading.Thread(target=lambda: (c3.connect("full"), done.append(1))); t.start()
time.sleep(0.05); was = list(done); f.accept(); t.join(); print("waited", was, done)
c4 = socket.socket(socket.AF_UNIX); c4.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 30000)); print("timeout", name(lambda: c4.connect("full")))
# abstract
x = server("\0viewtest-%d" % os.getpid()); print("abstract", pair(x, "\0viewtest-%d" % os.getpid())[0])
e = socket.socket(socket.AF_UNIX); e.bind(""); print("autobind", len(e.getsockname()))
q = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); q.bind("q"); q.listen(1)
qc = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); qc.connect("q"); qa, _ = q.accept(); qc.sendmsg([b"seq"]); print("seqpacket", qa.recv(10))
print("type", name(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect("q")))
