# SPDX-License-Identifier: Apache-2.0
#
# Who a server in DIR is connected to by, and what another thread sees of a socket that waits for
# its connection. It begins as root; the client becomes somebody else.
import fcntl, os, socket, struct, sys, threading, time
os.chdir(sys.argv[1])
s = socket.socket(socket.AF_UNIX)
s.bind("sock")
s.listen(0)
os.chmod("sock", 0o777)
os.chmod(".", 0o777)
child = os.fork()
if child == 0:
    s.close()
    os.setgroups([3005])
    os.setresgid(3000, 3001, 3002)
    os.setresuid(2000, 2001, 2002)
    c = socket.socket(socket.AF_UNIX)
    c.connect("sock")  # fills the backlog
    w = socket.socket(socket.AF_UNIX)
    flags = looks = 0
    t = threading.Thread(target=lambda: w.connect("sock"))
    t.start()
    while t.is_alive():
        looks += 1
        flags |= fcntl.fcntl(w, fcntl.F_GETFL)
    print("O_NONBLOCK", flags & os.O_NONBLOCK, "looked" if looks > 100 else "%d looks" % looks, flush=True)
    c.recv(1)
    os._exit(0)
time.sleep(0.5)
seen = []
for i in range(2):
    c, _ = s.accept()
    pid, uid, gid = struct.unpack("iII", c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    groups = struct.unpack("I", c.getsockopt(socket.SOL_SOCKET, 59, 4))  # SO_PEERGROUPS
    seen.append((c, "uid %d gid %d groups %s" % (uid, gid, list(groups))))
time.sleep(0.1)
seen[0][0].close()
print("status", os.waitpid(child, 0)[1])
for _, who in seen:
    print(who)
