# SPDX-License-Identifier: Apache-2.0
"""Downloads, and looks at its own packets meanwhile."""
import socket, subprocess, sys, threading, time

print("begin", flush=True)
sys.stdin.readline()
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
s.sendall(b"drip\n")
got, wrong, run = 0, 0, True
PATTERN = bytes((i * 7 + i // 251) & 0xFF for i in range(251 * 256))
CHUNK = (PATTERN * 8)[:256 << 10]


def read():
    global got, wrong
    have = b""
    while run:
        b = s.recv(65536)
        if not b:
            break
        have += b
        got += len(b)
        if len(have) >= len(CHUNK):
            wrong += have[:len(CHUNK)] != CHUNK
            have = have[len(CHUNK):]
        time.sleep(0.0005)


def step(what):
    print(what if not wrong else "%d wrong chunks" % wrong, flush=True)
    sys.stdin.readline()


def moved(n, limit):
    start, end = got, time.monotonic() + limit
    while got < start + n and time.monotonic() < end:
        time.sleep(0.01)
    return got - start


t = threading.Thread(target=read, daemon=True)
t.start()
step("connected")
step("moved" if moved(1 << 20, 10) >= 1 << 20 else "stuck")
p = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
p.settimeout(10)
data = 0
while data < 4 << 20:
    b, a = p.recvfrom(70000)
    if a[2] == 0 and len(b) > 1000:  # PACKET_HOST
        data += len(b)
step("watched: packets with data")
p.close()
step("unwatched")
step("again" if moved(8 << 20, 20) >= 8 << 20 else "stuck")
subprocess.run(["ip", "link", "set", "nat0", "down"], check=True)
moved(32 << 20, 2)  # what was on its way
step("down: nothing comes" if moved(1, 1) == 0 else "down: bytes come")
subprocess.run(["ip", "link", "set", "nat0", "up"], check=True)
subprocess.run(["ip", "route", "replace", "default", "via", "10.0.2.2", "dev", "nat0"], check=True)
step("up: it goes on" if moved(1 << 20, 20) >= 1 << 20 else "up: stuck")
run = False
