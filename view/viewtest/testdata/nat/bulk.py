# SPDX-License-Identifier: Apache-2.0
"""What a program sees of TCP when much is moved; prints the same wherever it runs.

The server of the test does what the first line of a connection says.
"""
import errno, hashlib, os, select, socket, struct, sys, threading, time

ADDR, PORT = sys.argv[1], int(sys.argv[2])
MB = 1 << 20
PATTERN = bytes((i * 7 + i // 251) & 0xFF for i in range(251 * 256))


def pattern(n, at=0):
    at %= len(PATTERN)
    return (PATTERN * (n // len(PATTERN) + 2))[at:at + n]


def connect(what):
    s = socket.create_connection((ADDR, PORT), timeout=30)
    s.sendall(what.encode() + b"\n")
    return s


def drain(s, n=None, pause=0):
    """Reads n bytes, or until the end; returns their number and hash."""
    h, got = hashlib.sha256(), 0
    while n is None or got < n:
        b = s.recv(MB if n is None else min(MB, n - got))
        if not b:
            break
        h.update(b)
        got += len(b)
        if pause:
            time.sleep(pause)
            pause = 0
    return got, h.hexdigest()[:16]


def send(s, n, at=0):
    while n:
        k = min(n, MB)
        s.sendall(pattern(k, at))
        at += k
        n -= k


def error(f):
    try:
        return "%r" % (f(),)
    except OSError as e:
        return errno.errorcode.get(e.errno, repr(e))


def down():
    s = connect("send %d" % (64 * MB))
    return drain(s), error(lambda: s.recv(1))


def slow():
    return drain(connect("send %d" % (64 * MB)), pause=0.5)


def up():
    s = connect("hash")
    send(s, 64 * MB)
    s.shutdown(socket.SHUT_WR)
    return s.makefile().read()


def duplex():
    s = connect("echo")
    t = threading.Thread(target=lambda: (send(s, 32 * MB), s.shutdown(socket.SHUT_WR)))
    t.start()
    r = drain(s)
    t.join()
    return r


def turns():
    s = connect("echo")
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(3000):
        s.sendall(b"%d\n" % i)
        want = b"%d\n" % i
        if drain(s, len(want))[0] != len(want):
            return "short"
    s.shutdown(socket.SHUT_WR)
    return drain(s)


def reset():  # often: an end that is none may come first
    return [reset_once() for _ in range(20)]


def reset_once():
    s = connect("reset %d" % MB)
    n = drain(s, MB)
    s.sendall(b"go\n")
    p = select.poll()
    p.register(s, select.POLLIN)
    ev = p.poll(10000)
    return n, [e & ~select.POLLOUT for _, e in ev], error(lambda: s.recv(1)), error(lambda: s.recv(1)), error(lambda: s.send(b"x"))


def abort():
    s = connect("aborted")
    send(s, 8 * MB)
    drain(s, 3)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    t = connect("last")
    return t.makefile().read()


def after_end():
    s = connect("end %d" % (4 * MB))
    n = drain(s)
    send(s, 24 * MB)
    s.shutdown(socket.SHUT_WR)
    t = connect("last")
    return n, t.makefile().read()


def urgent():
    s = connect("hash")
    send(s, 8 * MB)
    s.send(b"!", socket.MSG_OOB)
    send(s, 8 * MB)
    s.shutdown(socket.SHUT_WR)
    return s.makefile().read()


def urgent_down():
    s = connect("urgent")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    return drain(s)


def more():
    s = connect("hash")
    send(s, 4 * MB)
    s.send(b"a", socket.MSG_MORE)
    s.send(b"b")
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    send(s, 4 * MB)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    send(s, 4 * MB)
    s.shutdown(socket.SHUT_WR)
    return s.makefile().read()


def many():
    out = []

    def one():
        out.append(drain(connect("send %d" % MB)))
    ts = [threading.Thread(target=one) for _ in range(150)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    return len(out), len(set(out)), out[0]


def names():
    s = connect("echo")
    before = s.getsockname(), s.getpeername()
    send(s, MB)
    drain(s, MB)
    info = struct.unpack_from("QQ", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 120)
    return before == (s.getsockname(), s.getpeername()), s.getpeername() == (ADDR, PORT) + ((0, 0) if ":" in ADDR else ()), \
        info[0] >= MB, info[1] >= MB, s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


for f in (down, slow, up, duplex, turns, reset, abort, after_end, urgent, urgent_down, more, many, names):
    print(f.__name__, f(), flush=True)

# The last thing is written, and the program ends.
send(connect("keep"), 16 * MB)
