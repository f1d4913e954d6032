# SPDX-License-Identifier: Apache-2.0
"""Serves what is published: tells clients who they are to it, and echoes."""
import socket, sys, threading


def handle(c, a):
    c.sendall(("%s\n" % a[0].removeprefix("::ffff:")).encode())
    while True:
        b = c.recv(65536)
        if not b:
            break
        c.sendall(b)
    c.close()


def tcp(s):
    while True:
        c, a = s.accept()
        threading.Thread(target=handle, args=(c, a), daemon=True).start()


def udp(s):
    while True:
        b, a = s.recvfrom(2000)
        s.sendto(("%s %s" % (a[0].removeprefix("::ffff:"), b.decode())).encode(), a)


def opened(kind, port, where="::"):
    s = socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET, kind)
    if kind == socket.SOCK_STREAM:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((where, port))
    if kind == socket.SOCK_STREAM:
        s.listen()
    threading.Thread(target=tcp if kind == socket.SOCK_STREAM else udp, args=(s,), daemon=True).start()
    return s


here = [opened(socket.SOCK_STREAM, 8000), opened(socket.SOCK_DGRAM, 8000), opened(socket.SOCK_STREAM, 8001, "127.0.0.1")]
print("serving", flush=True)
for line in sys.stdin:
    if line == "close\n":
        for s in here:
            s.shutdown(socket.SHUT_RDWR) if s.type == socket.SOCK_STREAM else None
            s.close()
        print("closed", flush=True)
