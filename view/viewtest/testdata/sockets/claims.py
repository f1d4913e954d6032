# SPDX-License-Identifier: Apache-2.0

# Who a program may say that it is, to the socket sys.argv[1], natively and in a view. It
# begins as root and becomes somebody else.

import os
import socket
import struct
import sys

os.setgroups([])
os.setresgid(3000, 3001, 3002)
os.setresuid(2000, 2001, 2002)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
me = os.getpid()
for pid, uid, gid in (me, 2000, 3000), (me, 2001, 3001), (me, 2002, 3002), (me, 0, 3000), (me, 2000, 0), (me, 2003, 3000), (1, 2000, 3000):
    try:
        s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("iII", pid, uid, gid))], 0, sys.argv[1])
        said = "sent"
    except OSError as e:
        said = e.strerror
    print("me" if pid == me else pid, uid, gid, said, flush=True)
s.sendto(b"x", sys.argv[1])
