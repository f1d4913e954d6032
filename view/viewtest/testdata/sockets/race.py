# SPDX-License-Identifier: Apache-2.0
#
# Connects and sends to DIR/open/sock while others change what the path is, so that it may be
# DIR/secret/sock, for a second. Prints how often each was reached.
import ctypes, mmap, os, signal, socket, sys, time
dir = sys.argv[1]
good, bad = dir + "/open/sock", dir + "/secret/sock"
libc = ctypes.CDLL(None, use_errno=True)
counts = mmap.mmap(-1, 4096)  # shared: open, secret
def count(i): counts[8*i:8*i+8] = (int.from_bytes(counts[8*i:8*i+8], "little") + 1).to_bytes(8, "little")
def look(s):
    try:
        got = s.recv(6)
        count(1 if got == b"secret" else 0 if got == b"open" else 2)
    except OSError: pass
    s.close()
workers = []
def worker(f):
    pid = os.fork()
    if pid == 0:
        while True: f()
    workers.append(pid)
def tcp_like():
    s = socket.socket(socket.AF_UNIX); s.settimeout(2); return s
# A symbolic link leads here, then there.
def flip():
    for to in ("open", "secret"):
        os.symlink(to, dir + "/new")
        os.rename(dir + "/new", dir + "/flip")
def by_link():
    s = tcp_like()
    try: s.connect(dir + "/flip/sock")
    except OSError: return s.close()
    look(s)
# The address in memory is one, then the other.
memory = mmap.mmap(-1, 4096)
address = lambda p: (1).to_bytes(2, "little") + p.encode().ljust(107, b"\0")
size = 2 + max(len(good), len(bad)) + 1
def change():
    for _ in range(1000):
        memory[0:size] = address(bad)[:size]
        memory[0:size] = address(good)[:size]
at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
def by_memory():
    s = socket.socket(socket.AF_UNIX)
    if libc.connect(s.fileno(), ctypes.c_void_p(at), size) == 0: look(s)
    else: s.close()
os.symlink("open", dir + "/flip")
for f in (flip, by_link, change, by_memory): worker(f)
time.sleep(1.5)
for pid in workers: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
print("open %d secret %d" % tuple(int.from_bytes(counts[8*i:8*i+8], "little") for i in (0, 1)))
