# SPDX-License-Identifier: Apache-2.0
#
# What sends do that wait, are interrupted, or fail, on sockets of the kernel's: one line for each,
# the same natively and where somebody else makes the calls.
import errno, os, select, signal, socket, struct, threading, time
def name(f):
    try: return f()
    except OSError as e: return errno.errorcode[e.errno]
def pair(kind):
    if kind == "unix": return socket.socketpair()
    ln = socket.create_server(("127.0.0.1", 0))
    c = socket.create_connection(ln.getsockname())
    return c, ln.accept()[0]
signals = []
signal.signal(signal.SIGPIPE, lambda *_: signals.append("PIPE"))
signal.signal(signal.SIGALRM, lambda *_: signals.append("ALRM"))
big = bytes(range(256)) * (1 << 15)  # 8 MiB
for kind in "unix", "tcp":
    # The other end is gone.
    a, b = pair(kind)
    b.close()
    time.sleep(0.02)
    name(lambda: a.sendmsg([b"x"]))
    time.sleep(0.02)
    signals.clear()
    print(kind, "gone", name(lambda: a.sendmsg([b"x"])), signals, name(lambda: a.sendmsg([b"x"], [], socket.MSG_NOSIGNAL)), signals)
    # More than there is room for: all of it, for a slow reader.
    a, b = pair(kind)
    got = []
    def read():
        while chunk := b.recv(1 << 16): got.append(chunk)
    t = threading.Thread(target=read)
    late = threading.Timer(0.05, t.start)
    late.start()
    print(kind, "waits", a.sendmsg([big[:1000], big[1000:]]), end=" ")
    a.shutdown(socket.SHUT_WR)
    late.join()
    t.join()
    print(b"".join(got) == big)
    # A time-out, O_NONBLOCK, and a signal that comes when a part is gone.
    a, b = pair(kind)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 50000))
    n = a.sendmsg([big])
    while name(lambda: a.sendmsg([big])) != "EAGAIN": pass  # TCP's room grows
    print(kind, "timeout", 0 < n < len(big), name(lambda: a.sendmsg([big], [], socket.MSG_DONTWAIT)))
    a, b = pair(kind)
    signals.clear()
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    n = a.sendmsg([big])
    print(kind, "interrupted", 0 < n < len(big), signals)
    # One that is restarted, as all of it waits.
    for _ in range(5):
        while name(lambda: a.sendmsg([big], [], socket.MSG_DONTWAIT)) != "EAGAIN": pass
        time.sleep(0.02)
    signals.clear()
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    t = threading.Timer(0.3, lambda b: [b.recv(1 << 20) for _ in range(20)], [b])
    t.start()
    print(kind, "restarted", a.sendmsg([b"x"]), signals)
    a.close()
    t.join()
    signal.siginterrupt(signal.SIGALRM, True)
# Datagrams that wait for room.
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
while name(lambda: a.sendmsg([b"x" * 1000], [], socket.MSG_DONTWAIT)) == 1000: pass
t = threading.Timer(0.05, lambda b: [None for _ in iter(lambda: b.recv(2000), b"y")], [b])
t.start()
print("datagram", a.sendmsg([b"y"]), name(lambda: a.sendmsg([b"x" * 1000000])))
t.join()
# A netlink socket that is full: what waits for room comes once, whatever signals come meanwhile, or
# not at all.
full = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 2)  # NETLINK_USERSOCK
full.bind((0, 0))
nl = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 2)
count = 0
while name(lambda: nl.sendto(b"%9d" % count + b"x" * 5000, socket.MSG_DONTWAIT, full.getsockname())) == 5009: count += 1
nl.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 50000))
print("netlink timeout", name(lambda: nl.sendto(b"%9d" % count + b"x" * 5000, full.getsockname())), end=" ")
nl.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
numbers = []
def numbered():
    full.settimeout(0.3)
    try:
        while True: numbers.append(int(full.recv(6000)[:9]))
    except socket.timeout: pass
signals.clear()
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
t = threading.Timer(0.45, numbered)
t.start()
n = nl.sendto(b"%9d" % count + b"x" * 5000, full.getsockname())
signal.setitimer(signal.ITIMER_REAL, 0)
signal.siginterrupt(signal.SIGALRM, True)
t.join()
print(n, numbers == list(range(count + 1)), signals[:1])
nl.close()
# TCP: a connection made by sending, one that is refused, one that is made by others meanwhile.
ln = socket.create_server(("127.0.0.1", 0))
c = socket.socket()
print("fast open", name(lambda: c.sendmsg([b"word"], [], 0x20000000, ln.getsockname())), ln.accept()[0].recv(10))
c = socket.socket()
c.setblocking(False)
print("at once", name(lambda: c.connect(ln.getsockname())), select.select([], [c], [], 5)[1] == [c], name(lambda: c.connect(ln.getsockname())), name(lambda: c.connect(ln.getsockname())))
port = socket.socket()
port.bind(("127.0.0.1", 0))
c = socket.socket()
print("refused", name(lambda: c.connect(port.getsockname())), c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), name(lambda: c.connect(ln.getsockname())))
# What the kernel sends from where it is comes whole, and is told of once.
a, b = pair("tcp")
a.setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
t = threading.Thread(target=lambda: [b.recv(1 << 16) for _ in iter(lambda: len(b.recv(1, socket.MSG_PEEK)), 0)])
t.start()
n = a.sendmsg([big[:3 << 20]], [], 0x4000000)
a.shutdown(socket.SHUT_WR)
t.join()
time.sleep(0.05)
ids = []
try:
    while True:
        control = a.recvmsg(1, 200, socket.MSG_ERRQUEUE)[1][0][2]
        ids.append(struct.unpack("IBBBBII", control[:16])[5:7])
except OSError: pass
print("zerocopy", n, ids[0][0], ids[-1][1])
# Netlink sockets are told by the process.
nl = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
nl.bind((0, 0))
other = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
other.sendto(struct.pack("IHHIIB3x", 20, 18, 0x301, 1, 0, 0), (0, 0))
print("netlink", nl.getsockname()[0] == os.getpid(), other.getsockname()[0] not in (0, os.getpid()), len(other.recv(65536)) > 100)
print("links", socket.if_nameindex()[0])
# As many descriptors as a message may carry, and one more.
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for n in 253, 254, 10000:
    print("rights", n, name(lambda: a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("%di" % n, *[0] * n))])))
