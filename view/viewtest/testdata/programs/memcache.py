# SPDX-License-Identifier: Apache-2.0
# memcache.py HOST: speaks memcached's text protocol, TCP from 8 threads and
# UDP, and says "good" if what was stored comes back.
import hashlib, socket, struct, sys, threading

host = sys.argv[1]
big = bytes(i * 31 & 255 for i in range(900 * 1024))
bad = []


def worker(n):
    try:
        s = socket.create_connection((host, 11211), timeout=20)
        f = s.makefile("rwb")
        # All questions at once, then all answers.
        for i in range(125):
            f.write(b"set k%d-%d 0 60 %d\r\nvalue %d\r\n" % (n, i, len(b"value %d" % i), i))
        f.flush()
        for i in range(125):
            assert f.readline() == b"STORED\r\n"
        f.write(b"get " + b" ".join(b"k%d-%d" % (n, i) for i in range(125)) + b"\r\n")
        f.flush()
        for i in range(125):
            assert f.readline() == b"VALUE k%d-%d 0 %d\r\n" % (n, i, len(b"value %d" % i))
            assert f.readline() == b"value %d\r\n" % i
        assert f.readline() == b"END\r\n"
        f.write(b"set big%d 0 60 %d\r\n%s\r\n" % (n, len(big), big))
        f.write(b"get big%d\r\n" % n)
        f.flush()
        assert f.readline() == b"STORED\r\n"
        assert f.readline() == b"VALUE big%d 0 %d\r\n" % (n, len(big))
        got = f.read(len(big))
        assert hashlib.sha256(got).digest() == hashlib.sha256(big).digest()
        assert f.readline() + f.readline() == b"\r\nEND\r\n"
    except Exception as e:
        bad.append(repr(e))


threads = [threading.Thread(target=worker, args=(n,)) for n in range(8)]
for t in threads:
    t.start()
for t in threads:
    t.join()

# The frame header: request, sequence number, datagrams, reserved.
family = socket.AF_INET6 if ":" in host else socket.AF_INET
u = socket.socket(family, socket.SOCK_DGRAM)
u.settimeout(5)
u.connect((host, 11211))
u.send(struct.pack("!HHHH", 7, 0, 1, 0) + b"get k3-4\r\n")
d = u.recv(1500)
if d != struct.pack("!HHHH", 7, 0, 1, 0) + b"VALUE k3-4 0 7\r\nvalue 4\r\nEND\r\n":
    bad.append("UDP: %r" % d)
print("good" if not bad else bad)
