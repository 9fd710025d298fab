#!/usr/bin/env python3
"""cawfs status, cawfs-fence and cawfs-replay as an administrator uses them, on live, stopped and dead nodes.

Usage: tools_test.py LUN-KIND [unittest options]. Needs root.
"""
import errno
import hashlib
import os
import re
import sys
import threading
import unittest

import cluster

KIND = sys.argv.pop(1) if len(sys.argv) > 1 else "file"


def content(name):
    return name.encode() * 5000


def write_synced(node, name):
    with open(node.path(name), "wb") as file:
        file.write(content(name))
        file.flush()
        os.fsync(file.fileno())


def slot_of(node):
    return int(re.search(r"slot (\d+), incarnation", node.read_log()).group(1))


class Tools(unittest.TestCase):
    dead_time = 2

    def setUp(self):
        self.cluster = cluster.Cluster(KIND, dead_time=self.dead_time)
        self.addCleanup(self.cluster.clear)

    def tool(self, name, *arguments, expect=0):
        """Output of a tool, run on a host that has nothing mounted."""
        done = self.cluster.tool(name, *arguments, self.cluster.lun.source, host=3, check=False)
        self.assertEqual(done.returncode, expect, f"{name} {arguments}\n{done.stdout}\n{self.cluster.logs()}")
        return done.stdout

    def nodes(self):
        return {node["slot"]: node for node in self.cluster.status()["nodes"] if node["state"] != "clean"}

    def assert_there(self, node, *names):
        for name in names:
            with open(node.path(name), "rb") as file:
                self.assertEqual(file.read(), content(name), name)

    def assert_out(self, node):
        """The node withdraws: it writes nothing any more, and says so."""
        cluster.wait_for(lambda: "withdrawn" in node.read_log(), "the fenced node to withdraw")
        with self.assertRaises(OSError) as caught:
            write_synced(node, "never")
        self.assertEqual(errno.errorcode[caught.exception.errno], "EIO")

    def end(self):
        """Every node leaves; the file system is clean, and no COMPARE AND WRITE was refused on the way."""
        self.assertNotIn("refused a COMPARE AND WRITE", self.cluster.logs())
        for node in self.cluster.nodes:
            if node.process is not None:
                node.unmount()
        self.tool("fsck.cawfs", "-n")

    def keys_of_nodes(self, status):
        return set(status["keys"]) - set(status["stray_keys"])

    def lun_hash(self):
        with open(self.cluster.lun.source, "rb") as image:
            return hashlib.file_digest(image, "sha256").hexdigest()


class StatusTest(Tools):
    dead_time = 10  # a node that is stopped for a moment must not be fenced

    def test_status(self):
        a, b = self.cluster.mount(2)
        before = self.cluster.status()
        self.assertEqual(before["reservation"], "type 7")
        self.assertEqual(before["dead_time_ms"], self.dead_time * 1000)
        self.assertEqual(len(self.keys_of_nodes(before)), 2)
        self.assertLessEqual(len(before["stray_keys"]), 1)  # mkfs's, until it is swept
        self.assertEqual(set(self.nodes()), {slot_of(a), slot_of(b)})
        for node in self.nodes().values():
            self.assertTrue(node["alive"] and node["key_registered"] and not node["damaged"], node)
            self.assertIn(node["key"], before["keys"])
            self.assertEqual(node["silent_seconds"], 0)
            self.assertGreater(node["journal_blocks"], 100)

        # What a node did stands in its heartbeat.
        was = self.nodes()[slot_of(a)]
        for i in range(20):
            write_synced(a, f"file{i}")
        with open(a.path("large"), "wb") as file:
            file.write(bytes(20 << 20))
            os.fsync(file.fileno())
        cluster.wait_for(lambda: self.nodes()[slot_of(a)]["operations"] >= was["operations"] + 40, "the count")
        now = self.nodes()[slot_of(a)]
        self.assertGreater(now["locks_held"], was["locks_held"])
        self.assertGreater(now["journal_used"], was["journal_used"])
        with open(a.path("dirty"), "wb", buffering=0) as file:
            cluster.wait_for(lambda: file.write(bytes(1 << 16)) and self.nodes()[slot_of(a)]["dirty_bytes"] > 0,
                             "dirty bytes")
            os.fsync(file.fileno())
        cluster.wait_for(lambda: self.nodes()[slot_of(a)]["dirty_bytes"] == 0, "everything to be written back")

        # A stopped node is silent, not dead; one that has left is clean.
        b.pause()
        silent = self.nodes()[slot_of(b)]
        self.assertFalse(silent["alive"])
        self.assertGreater(silent["silent_seconds"], self.dead_time / 10)
        self.assertTrue(silent["key_registered"])
        b.resume()
        cluster.wait_for(lambda: self.nodes()[slot_of(b)]["alive"], "the node to be alive again")
        b.unmount()
        self.assertEqual(set(self.nodes()), {slot_of(a)})
        self.end()
        self.assertEqual(self.nodes(), {})
        # Groups' headers tell of space; they are in place by now.
        self.assertLessEqual(self.cluster.status()["free_bytes"], before["free_bytes"] - (20 << 20))


class FenceAndReplayTest(Tools):
    def test_live_nodes(self):
        """Nobody is disturbed without --force; with it, a node is out at once and the other goes on."""
        a, b = self.cluster.mount(2)
        write_synced(a, "before")
        slots = [slot_of(a), slot_of(b)]
        stop = threading.Event()
        written = []
        writer = threading.Thread(target=self.write_until, args=(b, stop, written))
        writer.start()
        try:
            self.assertEqual(self.tool("cawfs-fence").count("alive"), 2)
            for slot in slots * 2:
                self.assertIn(f"slot {slot} is alive", self.tool("cawfs-fence", "--slot", slot, expect=3))
            listed = self.tool("cawfs-replay")
            self.assertEqual(listed.count("live, not looked at"), 2, listed)
            for slot in slots:
                self.assertIn("refused", self.tool("cawfs-replay", "--replay", "--slot", slot, expect=3))
            self.tool("cawfs-replay", "--replay")
            self.assertTrue(all(node["alive"] for node in self.nodes().values()))
            self.assert_there(b, "before")
            write_synced(a, "undisturbed")
            self.assertIn("is fenced", self.tool("cawfs-fence", "--slot", slots[0], "--force"))
            self.assert_out(a)
            cluster.wait_for(lambda: "replayed in" in b.read_log(), "the other node to replay")
            self.assert_there(b, "before", "undisturbed")
        finally:
            stop.set()
            writer.join()
        self.assertGreater(len(written), 0)
        self.assertEqual(len(self.keys_of_nodes(self.cluster.status())), 1)
        self.assert_there(b, *written)
        self.end()

    def write_until(self, node, stop, written):
        while not stop.is_set():
            write_synced(node, f"w{len(written)}")
            written.append(f"w{len(written)}")

    def test_dead_nodes(self):
        """All are killed: one is fenced by hand, cawfs-replay replays both, and a mount has nothing left to do."""
        a, b = self.cluster.mount(2)
        names = []
        for node in (a, b):
            for i in range(10):
                names.append(f"{node.number}-{i}")
                write_synced(node, names[-1])
        slots = [slot_of(a), slot_of(b)]
        for node in (a, b):
            node.kill()
        self.assertEqual(self.tool("cawfs-fence").count("silent"), 2)
        self.assertIn("no node is in slot 7", self.tool("cawfs-fence", "--slot", 7, expect=1))

        # Nothing is known of the rest, so no figures; and it is not damaged, only not to be checked yet.
        checked = self.tool("fsck.cawfs", "-n", expect=8)
        self.assertIn("cawfs-replay --replay", checked)
        self.assertNotIn("blocks in use", checked)

        was = self.lun_hash() if KIND == "file" else None
        for arguments in ([], ["--dry-run"]):
            listed = self.tool("cawfs-replay", *arguments, expect=1)
            for slot in slots:
                line = re.search(rf"slot +{slot} .* dead, (\d+) transactions .* to be written: (\d+) blocks", listed)
                self.assertTrue(line and int(line.group(1)) >= 10 and int(line.group(2)) > 0, listed)
        if was:
            self.assertEqual(self.lun_hash(), was, "a dry run wrote")

        self.assertIn("is fenced", self.tool("cawfs-fence", "--slot", slots[0]))
        node = self.nodes()[slots[0]]
        self.assertEqual((node["state"], node["fenced"], node["key_registered"]), ("recovering", True, False))
        self.assertEqual(self.nodes()[slots[1]]["state"], "active")
        self.assertIn("dead", self.tool("cawfs-replay", "--slot", slots[0], expect=1))

        self.assertIn("2 journals replayed", self.tool("cawfs-replay", "--replay"))
        self.assertEqual(self.nodes(), {})
        self.tool("cawfs-replay")
        self.tool("fsck.cawfs", "-n")
        again = self.cluster.node(1).mount()
        again.log.write_text("")
        self.assert_there(again, *names)
        self.assertNotIn("suspected", again.read_log())
        self.end()

    def test_stopped_node(self):
        """One that is stopped in the middle of writing is fenced by hand; when it wakes it writes nothing more."""
        (a,) = self.cluster.mount(1)
        stop = threading.Event()
        written = []
        writer = threading.Thread(target=self.write_until_refused, args=(a, stop, written))
        writer.start()
        cluster.wait_for(lambda: len(written) > 20, "some files")
        a.pause()
        slot = slot_of(a)
        try:
            self.assertIn("is fenced", self.tool("cawfs-fence", "--slot", slot))
        finally:
            stop.set()
        synced = list(written)
        self.tool("cawfs-replay", "--replay")
        if a.process.poll() is None:  # the file LUN ends a stopped process that was in the middle of a write
            a.resume()
            self.assert_out(a)
        writer.join()
        b = self.cluster.node(2).mount()
        self.assert_there(b, *synced)
        if a.process.poll() is None:
            a.unmount()
        else:
            a.destroy()
            a.process = None
        self.end()

    def write_until_refused(self, node, stop, written):
        while not stop.is_set():
            try:
                write_synced(node, f"w{len(written)}")
            except OSError:
                return
            written.append(f"w{len(written)}")

    def test_self_test(self):
        """Nothing of a victim with many large writes in flight lands after the fence; a file system is left alone."""
        self.assertIn("overwrites its LUN", self.tool("cawfs-fence", "--self-test", expect=1))
        self.tool("fsck.cawfs", "-n")
        empty = self.cluster.directory / "empty"
        empty.mkdir()
        if KIND == "file":
            self.cluster.lun = cluster.FileLun(empty, 64 << 20)
        else:
            self.cluster.lun.close()
            self.cluster.lun = cluster.LioLun(empty, 64 << 20, int(KIND.removeprefix("lio")))
        done = self.tool("cawfs-fence", "--self-test", "--rounds", 2)
        self.assertRegex(done, r"2 rounds, [1-9]\d+ writes of the victim, .* 0 blocks changed .* fencing works")
        print(f"{KIND}: {done.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    unittest.main()
