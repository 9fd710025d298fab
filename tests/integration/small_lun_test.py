#!/usr/bin/env python3
"""Two nodes on a LUN that is soon full, and a node that stands still for less than the dead-time.

Usage: small_lun_test.py LUN-KIND [unittest options]; the kinds are those of cluster.py.
"""
import errno
import os
import pathlib
import re
import subprocess
import sys
import unittest

import cluster

KIND = sys.argv.pop(1) if len(sys.argv) > 1 else "file"


class SmallLunTest(unittest.TestCase):
    """Two nodes of a small LUN, with a dead-time that a stopped node survives."""

    def setUp(self):
        self.cluster = cluster.Cluster(KIND, size=64 << 20, dead_time=10)
        self.addCleanup(lambda: self.cluster.__exit__(None, None, None))
        self.a, self.b = self.cluster.mount(2)

    def fill(self, path):
        """Writes until nothing fits any more; returns how much did."""
        with open(path, "wb", buffering=0) as file, self.assertRaises(OSError) as caught:
            while True:
                file.write(bytes(64 << 10))
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        return os.stat(path).st_size

    def test_a_full_file_system_is_emptied_by_the_other_node(self):
        first = self.fill(self.a.path("full"))
        self.assertGreater(first, 16 << 20)
        self.assertEqual(os.stat(self.b.path("full")).st_size, first)
        os.unlink(self.b.path("full"))
        # What node b freed may be a little in coming back.
        again = cluster.wait_for(lambda: self.refill(first), "the space to be back")
        print(f"{KIND}: {first >> 10} KiB fitted, {again >> 10} KiB after deletion", flush=True)

    def refill(self, first):
        size = self.fill(self.b.path("again"))
        os.unlink(self.a.path("again"))
        return size if size >= first - (2 << 20) else None

    def test_who_waits_for_a_stopped_node_can_be_killed(self):
        """Design section 9, trap 5: an INTERRUPT is answered, whatever the request waits for."""
        with open(self.b.path("held"), "wb") as file:
            file.write(b"b" * 5000)
        self.b.pause()
        try:
            waiter = subprocess.Popen(["dd", "if=/dev/zero", f"of={self.a.path('held')}", "conv=notrunc", "count=1"],
                                      stderr=subprocess.DEVNULL)
            waits_in = pathlib.Path(f"/proc/{waiter.pid}/wchan")
            cluster.wait_for(lambda: re.search("fuse|request_wait", waits_in.read_text(encoding="utf-8")),
                             "dd to wait for the daemon")
            waiter.kill()
            waiter.wait(3)  # far less than the dead-time
        finally:
            self.b.resume()
        for node in (self.a, self.b):
            with open(node.path("held"), "r+b") as file:
                file.write(b"after")
        with open(self.a.path("held"), "rb") as file:
            self.assertEqual(file.read(), b"after" + b"b" * 4995)


if __name__ == "__main__":
    unittest.main()
