// SPDX-License-Identifier: Apache-2.0

// What scripts of tests have to do things as several threads and children.

package fsmod_test

// threads begins a script in Python: child returns what f does in a child, which clone(2) makes
// with flags; a Thread does what it is asked to.
const threads = `
import ctypes, os, sys, threading, queue, time
libc = ctypes.PyDLL(None, use_errno=True) # which keeps the lock that a child needs
FORK = 17
def call(n, *a):
    r = libc.syscall(n, *a)
    if r < 0: raise OSError(ctypes.get_errno(), "call %d" % n)
    return r
def child(f, flags=0):
    r, w = os.pipe()
    pid = call(56, flags | FORK, 0, 0, 0, 0) if flags else os.fork()
    if pid == 0:
        try: os.dup2(w, 1); print(f(), end="", flush=True)
        finally: os._exit(0)
    os.close(w); os.waitpid(pid, 0)
    with os.fdopen(r) as got: return got.read()
class Thread:
    "does what it is asked to"
    def __init__(self):
        self.todo, self.done = queue.Queue(), queue.Queue()
        threading.Thread(target=self.run, daemon=True).start()
    def run(self):
        while True: self.done.put(self.todo.get()())
    def do(self, *fs):
        for f in fs: self.todo.put(f); r = self.done.get()
        return r
`
