# SPDX-License-Identifier: Apache-2.0

# Kills children while they execute programs, and waits for them.

import os
import random
import subprocess
import sys
import time

open("again", "w").write('#!/bin/sh\nexec "$0"\n')
os.chmod("again", 0o755)
end = time.monotonic() + 3
done = 0
while time.monotonic() < end:
    p = subprocess.Popen([os.path.abspath("again")])
    time.sleep(0.005 + random.random() * 0.02)
    p.kill()
    try:
        p.wait(timeout=10)
    except subprocess.TimeoutExpired:
        print("one is never seen again, after", done, flush=True)
        os._exit(1)
    done += 1
print("all" if done > 20 else done)
