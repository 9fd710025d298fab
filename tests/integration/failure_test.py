"""Nodes that die or sleep under load: the survivor goes on, what was synced is there, fsck finds nothing.

Usage: failure_test.py LUN-KIND [unittest options]; CAWFS_TEST_FULL=1 runs the long form.
"""
import os
import subprocess
import sys
import time
import unittest

import cluster
import workers

KIND = sys.argv.pop(1) if len(sys.argv) > 1 else "file"
FULL = bool(os.environ.get("CAWFS_TEST_FULL"))
WORKERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "workers.py")
DEAD_TIME = 2


class Load:
    """Worker processes on one node, and the journal of what they were told is durable."""

    def __init__(self, node, directory, tag, count=3):
        self.journals = [str(node.cluster.directory / f"journal-{tag}-{i}") for i in range(count)]
        self.began = time.monotonic()
        self.workers = [subprocess.Popen([sys.executable, WORKERS, "churn", node.path(directory), f"{tag}w{i}", journal],
                                         stderr=subprocess.DEVNULL) for i, journal in enumerate(self.journals)]

    def lines(self):
        for journal in self.journals:
            if os.path.exists(journal):
                with open(journal, encoding="utf-8") as file:
                    yield from (line.split() for line in file if line.endswith("\n"))

    def operations(self):
        return sum(int(words[1]) for words in self.lines() if words[0] == "round")

    def synced(self):
        return {words[1]: int(words[2]) for words in self.lines() if words[0] == "synced"}

    def stop(self):
        for worker in self.workers:
            worker.kill()
            worker.wait()


class FailureTest(unittest.TestCase):
    def check_synced(self, node, directory, load):
        for name, length in load.synced().items():
            with open(os.path.join(node.path(directory), name), "rb") as file:
                self.assertEqual(file.read(), workers.content(name, length), name)

    def test_kill_under_load(self):
        """The daemon of node 1 is killed under load; node 2 goes on within the dead-time and 2 s."""
        with cluster.Cluster(KIND, dead_time=DEAD_TIME) as lun:
            survivor = lun.node(2).mount()
            for turn in range(100 if FULL else 5):
                victim = lun.node(1).mount()
                directory = f"round{turn}"
                os.mkdir(survivor.path(directory))
                load = Load(victim, directory, f"r{turn}")
                cluster.wait_for(lambda: load.operations() > 300 + turn * 37, "load")
                rate = load.operations() / (time.monotonic() - load.began)
                killed = time.monotonic()
                victim.kill()
                with open(os.path.join(survivor.path(directory), "after"), "wb") as file:
                    file.write(b"x")
                waited = time.monotonic() - killed
                load.stop()
                lun.nodes.remove(victim)
                print(f"{KIND}: round {turn}: {rate:.0f} operations/s, survivor went on after {waited:.2f} s", flush=True)
                self.assertLess(waited, DEAD_TIME + 2)
                self.check_synced(survivor, directory, load)

    def test_all_nodes_killed(self):
        with cluster.Cluster(KIND, dead_time=DEAD_TIME) as lun:
            nodes = lun.mount(3)
            loads = []
            for node in nodes:
                os.mkdir(node.path(f"d{node.number}"))
                loads.append((node.number, Load(node, f"d{node.number}", f"n{node.number}", count=1)))
            for _, load in loads:
                cluster.wait_for(lambda current=load: current.operations() > 200, "load")
            for node in nodes:
                node.kill()
            for _, load in loads:
                load.stop()
            lun.nodes.clear()
            (node,) = lun.mount(1)
            for number, load in loads:
                self.check_synced(node, f"d{number}", load)

    def test_paused_past_the_dead_time(self):
        """A stopped daemon is fenced; when it wakes, its writes are refused and it answers EIO until umount."""
        with cluster.Cluster(KIND, dead_time=DEAD_TIME) as lun:
            victim, survivor = lun.mount(2)
            os.mkdir(survivor.path("d"))
            load = Load(victim, "d", "p", count=1)
            cluster.wait_for(lambda: load.operations() > 200, "load")
            victim.pause()
            with open(survivor.path("d/after"), "wb") as file:
                file.write(b"x")
            before = sorted(os.listdir(survivor.path("d")))
            if KIND == "file" and victim.process.poll() is not None:
                pass  # the file LUN ends a stopped process that was in the middle of a write
            else:
                victim.resume()
                cluster.wait_for(lambda: "withdr" in victim.read_log() or victim.process.poll() is not None,
                                 "the withdrawal")
                if victim.process.poll() is None:
                    with self.assertRaises(OSError):
                        os.listdir(victim.path("d"))
            load.stop()
            self.assertEqual(sorted(os.listdir(survivor.path("d"))), before)
            self.check_synced(survivor, "d", load)
            if victim.process.poll() is None:
                victim.unmount()
            else:
                victim.process = None


if __name__ == "__main__":
    unittest.main()
