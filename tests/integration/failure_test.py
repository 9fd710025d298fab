#!/usr/bin/env python3
"""Nodes that die or sleep under load: the survivor goes on, what was synced is there, fsck finds nothing.

Usage: failure_test.py LUN-KIND [unittest options]; CAWFS_TEST_FULL=1 runs the long form.
"""
import collections
import contextlib
import os
import pathlib
import random
import shutil
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
PHASES = ["commit", "checkpoint", "handover", "lock change", "allocation"]
# What the kills of successive rounds are aimed at; None: at any moment.
AIMS = [None, "checkpoint", "handover", "allocation", "commit", "lock change"]


def under_way(log):
    """What a daemon that logged with -v was doing when it ended."""
    count = collections.Counter()
    for line in log.splitlines():
        what, _, verb = line.rpartition(": ")[2].rpartition(" ")
        count[what] += {"begins": 1, "ends": -1}.get(verb, 0)
    return {phase for phase in PHASES if count[phase] > 0}


def stop_in(node, phase):
    """Stops the daemon while the phase is under way: its log said so after it had stopped."""
    begins = f": {phase} begins\n".encode()

    def stopped_in_phase():
        if begins not in log.read():
            return False
        node.pause()
        cluster.wait_for(node.is_stopped, "the daemon to stop")
        if phase in under_way(node.read_log()):
            return True
        node.resume()  # it was over too soon
        log.seek(0, os.SEEK_END)
        return False

    with open(node.log, "rb") as log:
        log.seek(0, os.SEEK_END)
        cluster.wait_for(stopped_in_phase, f"a {phase} to stop in", every=0.0001)


class Load:
    """Worker processes on one node, and the journal of what they were told is durable."""

    def __init__(self, node, directory, tag, count=3):
        self.journals = [str(node.cluster.directory / f"journal-{tag}-{i}") for i in range(count)]
        self.began = time.monotonic()
        self.workers = []
        for i, journal in enumerate(self.journals):
            with open(journal + ".errors", "wb") as errors:
                self.workers.append(subprocess.Popen(
                    [sys.executable, WORKERS, "churn", node.path(directory), f"{tag}w{i}", journal], stderr=errors))

    def lines(self):
        for journal in self.journals:
            if os.path.exists(journal):
                with open(journal, encoding="utf-8") as file:
                    yield from (line.split() for line in file if line.endswith("\n"))

    def operations(self):
        return sum(int(words[1]) for words in self.lines() if words[0] == "round")

    def reached(self, count):
        if not self.running():
            raise AssertionError("a worker ended: " + "".join(pathlib.Path(journal + ".errors").read_text()
                                                              for journal in self.journals))
        return self.operations() >= count

    def synced(self):
        return {words[1]: int(words[2]) for words in self.lines() if words[0] == "synced"}

    def running(self):
        return all(worker.poll() is None for worker in self.workers)

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
        """The daemon of node 1 is killed while both nodes work; node 2 goes on within dead-time + 2 s."""
        seed = int(os.environ.get("CAWFS_SEED", time.time_ns() % 1_000_000))
        chance = random.Random(seed)
        landed = collections.Counter({phase: 0 for phase in PHASES})
        rates = []
        # A small journal, so that there are checkpoints within seconds.
        with cluster.Cluster(KIND, dead_time=DEAD_TIME, mkfs=["--journal-size", "2M"]) as lun:
            survivor = lun.node(2).mount()
            for turn in range(100 if FULL else 5):
                victim = lun.node(1)
                victim.flags = ["-v"]
                victim.log.unlink(missing_ok=True)
                victim.mount()
                directory = f"round{turn}"
                os.mkdir(survivor.path(directory))
                load = Load(victim, directory, f"r{turn}")
                aim = AIMS[turn % len(AIMS)]
                # With and without handovers.
                aside = directory if turn % 2 or aim == "handover" else f"aside{turn}"
                os.makedirs(survivor.path(aside), exist_ok=True)
                beside = Load(survivor, aside, f"s{turn}", count=1)
                cluster.wait_for(lambda: load.reached(400), "load")
                rate = (load.operations() + beside.operations()) / (time.monotonic() - load.began)
                time.sleep(chance.random() / 2)
                if aim:
                    stop_in(victim, aim)
                killed = time.monotonic()
                victim.kill()
                with open(os.path.join(survivor.path(directory), "after"), "wb") as file:
                    file.write(b"x")
                waited = time.monotonic() - killed
                self.assertTrue(beside.running(), "the survivor's own work ended")
                load.stop()
                beside.stop()
                lun.nodes.remove(victim)
                phases = under_way(victim.read_log())
                landed.update(phases)
                self.assertLessEqual({aim} - {None}, phases)
                print(f"{KIND}: seed {seed}, round {turn}: {rate:.0f} operations/s, killed in "
                      f"{', '.join(sorted(phases)) or 'none of them'}, survivor went on after {waited:.2f} s", flush=True)
                rates.append(rate)
                self.assertLess(waited, DEAD_TIME + 2)
                self.check_synced(survivor, directory, load)
                self.check_synced(survivor, aside, beside)
                for used in {directory, aside}:
                    shutil.rmtree(survivor.path(used))
        print(f"{KIND}: kills that landed in each phase: {dict(landed)}", flush=True)
        self.assertGreater(sum(rates) / len(rates), 200)
        if FULL:
            self.assertNotIn(0, landed.values())

    def test_all_nodes_killed(self):
        with cluster.Cluster(KIND, dead_time=DEAD_TIME) as lun:
            nodes = lun.mount(3)
            loads = []
            for node in nodes:
                os.mkdir(node.path(f"d{node.number}"))
                loads.append((node.number, Load(node, f"d{node.number}", f"n{node.number}", count=1)))
            for _, load in loads:
                cluster.wait_for(lambda current=load: current.reached(200), "load")
            for node in nodes:
                node.kill()
            for _, load in loads:
                load.stop()
            lun.nodes.clear()
            (node,) = lun.mount(1)
            for number, load in loads:
                self.check_synced(node, f"d{number}", load)

    def test_what_only_a_dead_node_had_open_is_freed(self):
        with cluster.Cluster(KIND, dead_time=DEAD_TIME) as lun:
            victim, survivor = lun.mount(2)
            with open(survivor.path("file"), "wb") as file:
                file.write(b"x" * (20 << 20))
                os.fsync(file.fileno())
            held = os.open(victim.path("file"), os.O_RDONLY)
            os.unlink(survivor.path("file"))
            full = os.statvfs(survivor.path()).f_bfree
            victim.kill()
            with contextlib.suppress(OSError):
                os.close(held)
            lun.nodes.remove(victim)
            # Well before the survivor looks at what it has unlinked by itself.
            cluster.wait_for(lambda: os.statvfs(survivor.path()).f_bfree >= full + (20 << 20) // 4096,
                             "the blocks of the file", seconds=DEAD_TIME + 10)

    def test_paused_past_the_dead_time(self):
        """A stopped daemon is fenced; when it wakes, its writes are refused and it answers EIO until umount."""
        with cluster.Cluster(KIND, dead_time=DEAD_TIME) as lun:
            victim, survivor = lun.mount(2)
            os.mkdir(survivor.path("d"))
            load = Load(victim, "d", "p", count=1)
            cluster.wait_for(lambda: load.reached(200), "load")
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
