# SPDX-License-Identifier: Apache-2.0
"""Runs one module of CPython's tests and reports each test as Go's tests do.

runner.py MODULE PLAN SECONDS

PLAN is a file: the tests to run, one a line (all if there is none), a line
"--", and the tests to leave out. A test that runs longer than SECONDS has its
threads' stacks printed, so that the log of a hang says where. Tests that want outside hosts are run
as well, since others hide behind the same switch; they fail both ways.
"""

import faulthandler
import os
import sys
import unittest

from test import support

out = os.dup(1)  # tests may replace the other


def say(line):
    os.write(out, b"\n\x16" + line.encode() + b"\n")


def name(test):
    return test.id().removeprefix("test.").replace(" ", "_")


class Result(unittest.TestResult):
    """Reports each test by its worst outcome, subtests included."""

    def startTest(self, test):
        super().startTest(test)
        self.outcome = "PASS"
        say(f"=== RUN   {name(test)}")
        faulthandler.dump_traceback_later(seconds, file=sys.__stderr__)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        say(f"--- {self.outcome}: {name(test)} (0.00s)")
        super().stopTest(test)

    def failed(self, test, err):
        self.outcome = "FAIL"
        print(self._exc_info_to_string(err, test), file=sys.__stderr__, flush=True)
        if not isinstance(test, unittest.TestCase):  # setUpClass and the like
            say(f"--- FAIL: {name(test)} (0.00s)")

    def addError(self, test, err):
        self.failed(test, err)

    def addFailure(self, test, err):
        self.failed(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.failed(test, err)

    def addSkip(self, test, reason):
        if self.outcome == "PASS":
            self.outcome = "SKIP"

    def addUnexpectedSuccess(self, test):
        self.outcome = "FAIL"


def tests(suite):
    for t in suite:
        if isinstance(t, unittest.TestSuite):
            yield from tests(t)
        else:
            yield t


module, plan, seconds = sys.argv[1], open(sys.argv[2]).read(), float(sys.argv[3])
only, leave = (set(part.split()) for part in plan.split("--\n"))
support.use_resources = ["cpu", "network"]
support.verbose = 0
faulthandler.enable()
# The suite lets go of each test that has run, and nobody else holds one: with all
# of them alive the many garbage collections of test_asyncio take minutes.
wanted = unittest.TestSuite(
    t
    for t in tests(unittest.TestLoader().loadTestsFromName("test." + module))
    if (not only or name(t) in only) and name(t) not in leave
)
result = Result()
result.outcome = "PASS"
wanted.run(result)
sys.stdout.flush()
os._exit(0)  # threads that a test left behind must not keep it
