# SPDX-License-Identifier: Apache-2.0
#
# What a message by a connected socket says of its sender, who says nothing: one line for each, the
# same natively and in a view. Processes are told apart by their numbers.
import array, errno, os, signal, socket, struct, threading
RIGHTS = lambda fd: [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
signals = []
signal.signal(signal.SIGPIPE, lambda *_: signals.append("PIPE"))
signal.signal(signal.SIGALRM, lambda *_: signals.append("ALRM"))
def name(f):
    try: return f()
    except OSError as e: return errno.errorcode[e.errno]
def told(s, child, size=100):
    data, control, flags, _ = s.recvmsg(size, 1000)
    for level, typ, cred in control:
        if typ == socket.SCM_CREDENTIALS:
            pid, uid, gid = struct.unpack("iII", cred)
            return data[:10], len(data), "child" if pid == child else "me" if pid == os.getpid() else "?", uid == os.getuid(), gid == os.getgid()
    return data[:10], len(data), control
def inchild(f):
    pid = os.fork()
    if pid == 0:
        try: f()
        except BaseException as e:
            print(repr(e), flush=True)
            os._exit(1)
        os._exit(0)
    return pid
for kind in "STREAM", "SEQPACKET":
    make = lambda: socket.socketpair(socket.AF_UNIX, getattr(socket, "SOCK_" + kind))
    a, b = make()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    pid = inchild(lambda: a.sendmsg([b"one"]))
    os.waitpid(pid, 0)
    print(kind, told(b, pid))
    a.sendmsg([b"two"], [], socket.MSG_NOSIGNAL)
    print(kind, told(b, pid))
    t = threading.Thread(target=lambda: a.sendmsg([b"three"]))
    t.start()
    t.join()
    print(kind, told(b, pid))
    a.setblocking(False)
    a.sendmsg([b"four"])
    print(kind, told(b, pid))
    a.setblocking(True)
    # More than one piece, and a descriptor: they come, and of whom is not said here.
    print(kind, a.sendmsg([b"fi", b"ve"]), b.recvmsg(100)[0], a.sendmsg([b"six"], RIGHTS(0)), len(b.recvmsg(100, 100)[1]))
    print(kind, "nothing", a.sendmsg([]), a.sendmsg([b""]), name(lambda: b.recv(10, socket.MSG_DONTWAIT)))
    # One that waits for room.
    while name(lambda: a.sendmsg([b"x" * 1000], [], socket.MSG_DONTWAIT)) == 1000: pass
    def drain():
        while not b.recv(1000).endswith(b"last"): pass
    t = threading.Timer(0.1, drain)
    t.start()
    print(kind, "waits", a.sendmsg([b"last"]))
    t.join()
    # Two threads at once: what one takes of the room the other one waits for.
    a, b = make()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    sent = lambda: [a.sendmsg([b"y" * 1000]) for _ in range(500)]
    ts = [threading.Thread(target=sent) for _ in range(2)]
    for t in ts: t.start()
    got = 0
    while got < 1000000: got += len(b.recv(1000))
    for t in ts: t.join()
    print(kind, "both", got)
    # A signal's handler runs once for each, and no message is lost or comes twice.
    a, b = make()
    signals.clear()
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    ok, i = True, 0
    while len(signals) < 20:
        i += 1
        ok = ok and a.sendmsg([b"%9d" % i]) == 9 and b.recv(10) == b"%9d" % i
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(kind, "signals", ok, name(lambda: b.recv(10, socket.MSG_DONTWAIT)))
    b.close()
    signals.clear()
    print(kind, "gone", name(lambda: a.sendmsg([b"x"])), signals, name(lambda: a.sendmsg([b"x"], [], socket.MSG_NOSIGNAL)), signals)
    c = socket.socket(socket.AF_UNIX, getattr(socket, "SOCK_" + kind))
    print(kind, "unconnected", name(lambda: c.sendmsg([b"x"], [], socket.MSG_NOSIGNAL)))
    # An address says nothing to a socket that is connected, or is refused, whatever it names.
    a, b = make()
    print(kind, "address", name(lambda: a.sendmsg([b"to"], [], 0, "/nowhere/sock")), name(lambda: b.recv(10, socket.MSG_DONTWAIT)))
