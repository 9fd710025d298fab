#!/usr/bin/env python3
"""What one node does is seen by the others as soon as the call has returned; races have one winner.

Usage: coherence_test.py LUN-KIND [unittest options]; the kinds are those of cluster.LUN_KINDS.
"""
import concurrent.futures
import contextlib
import mmap
import os
import subprocess
import sys
import time
import unittest

import cluster
import workers

KIND = sys.argv.pop(1) if len(sys.argv) > 1 else "file"
WORKERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "workers.py")


def in_parallel(*calls):
    """Runs the calls at the same time and returns for each its value or its OSError."""
    def guarded(call):
        try:
            return call()
        except OSError as error:
            return error
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(guarded, calls))


class CoherenceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster.Cluster(KIND)
        cls.addClassCleanup(lambda: cls.cluster.__exit__(None, None, None))
        cls.nodes = cls.cluster.mount(3)
        cls.a, cls.b, cls.c = cls.nodes

    def setUp(self):
        self.name = self.id().rsplit(".", 1)[1]
        os.mkdir(self.a.path(self.name))

    def at(self, node, name=""):
        return os.path.join(node.path(self.name), name)

    def write(self, node, name, data):
        with open(self.at(node, name), "wb") as file:
            file.write(data)

    def read(self, node, name):
        with open(self.at(node, name), "rb") as file:
            return file.read()

    @contextlib.contextmanager
    def opened(self, node, directory):
        descriptor = os.open(self.at(node, directory), os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def test_create_write_rename_truncate_unlink(self):
        for turn in range(21):
            here, there, third = (self.nodes[(turn + i) % 3] for i in range(3))
            data = os.urandom(10 + turn * 3000)
            self.write(here, "file", data)
            self.assertEqual(os.stat(self.at(there, "file")).st_size, len(data))
            self.assertEqual(self.read(there, "file"), data)
            os.rename(self.at(there, "file"), self.at(there, "moved"))
            self.assertFalse(os.path.exists(self.at(here, "file")))
            self.assertEqual(self.read(here, "moved"), data)
            self.assertEqual(self.read(third, "moved"), data)
            os.truncate(self.at(here, "moved"), 5)
            self.assertEqual(self.read(there, "moved"), data[:5])
            os.unlink(self.at(there, "moved"))
            self.assertEqual(os.listdir(self.at(here)), [])
            self.assertEqual(os.listdir(self.at(there)), [])
            self.assertEqual(os.listdir(self.at(third)), [])

    def test_overwrite_is_seen_by_an_open_reader(self):
        self.write(self.a, "file", b"0" * 8192)
        with open(self.at(self.b, "file"), "rb", buffering=0) as reader, \
                open(self.at(self.a, "file"), "r+b", buffering=0) as writer:
            for turn in range(1, 50):
                data = str(turn % 10).encode() * 8192
                os.pwrite(writer.fileno(), data, 0)
                self.assertEqual(os.pread(reader.fileno(), 8192, 0), data)

    def test_attributes(self):
        self.write(self.a, "file", b"x")
        os.chmod(self.at(self.b, "file"), 0o640)
        self.assertEqual(os.stat(self.at(self.a, "file")).st_mode & 0o7777, 0o640)
        os.utime(self.at(self.a, "file"), ns=(1_000_000_007, 2_000_000_009))
        self.assertEqual(os.stat(self.at(self.b, "file")).st_mtime_ns, 2_000_000_009)
        os.link(self.at(self.b, "file"), self.at(self.b, "second"))
        self.assertEqual(os.stat(self.at(self.a, "file")).st_nlink, 2)

    def test_appends_are_neither_lost_nor_torn_nor_out_of_order(self):
        count = 400
        files = [self.at(node, "log") for node in self.nodes]
        writers = [subprocess.Popen([sys.executable, WORKERS, "append", files[i % 2], f"w{i}", str(count)])
                   for i in range(4)]
        while any(writer.poll() is None for writer in writers):
            for file in files:  # fills the kernel's caches, which then are stale
                if os.path.exists(file):
                    with open(file, "rb") as reader:
                        reader.read()
            time.sleep(0.02)
        self.assertEqual([writer.returncode for writer in writers], [0] * 4)
        for file in files:
            with open(file, "rb") as reader:
                lines = reader.read().decode(errors="replace").splitlines()
            records = [workers.parse(line) for line in lines]
            self.assertNotIn(None, records)
            for writer in range(4):
                numbers = [number for name, number in records if name == f"w{writer}"]
                self.assertEqual(numbers, list(range(count)), f"records of w{writer} in {file}")

    def test_nodes_create_and_delete_in_one_directory(self):
        def work(node, writer):
            for number in range(150):
                self.write(node, f"{writer}-{number}", b"x")
                if number % 3:
                    os.unlink(self.at(node, f"{writer}-{number}"))
        done = in_parallel(*(lambda node=node: work(node, f"n{node.number}") for node in self.nodes))
        self.assertEqual(done, [None] * 3)
        expected = sorted(f"n{node.number}-{number}" for node in self.nodes for number in range(0, 150, 3))
        for node in self.nodes:
            self.assertEqual(sorted(os.listdir(self.at(node))), expected)

    def test_listings_go_on_while_others_delete_and_create(self):
        stay = {f"stays-{number}-{'x' * 200}" for number in range(240)}
        for name in stay:
            self.write(self.a, name, b"")
        for turn in range(3):
            for number in range(40):
                self.write(self.a, f"goes-{turn}-{number}", b"")
            seen = []
            with os.scandir(self.at(self.b)) as listing:  # the C library asks for a hundred names at a time
                for entry in listing:
                    seen.append(entry.name)
                    if len(seen) == 50:
                        for number in range(40):
                            os.unlink(self.at(self.a, f"goes-{turn}-{number}"))
                            self.write(self.a, f"comes-{turn}-{number}", b"")
            self.assertEqual(len(seen), len(set(seen)), "a name was listed twice")
            self.assertEqual(stay - set(seen), set())

    def test_racing_creates_and_mkdirs_have_one_winner(self):
        for number in range(30):
            opened = in_parallel(*(lambda node=node: os.open(self.at(node, f"file{number}"),
                                                             os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                                   for node in self.nodes))
            winners = [result for result in opened if isinstance(result, int)]
            for descriptor in winners:
                os.close(descriptor)
            self.assertEqual(len(winners), 1, opened)
            made = in_parallel(*(lambda node=node: os.mkdir(self.at(node, f"dir{number}")) for node in self.nodes))
            self.assertEqual(made.count(None), 1, made)
            self.assertEqual(sum(isinstance(result, FileExistsError) for result in opened + made), 4)

    def test_deleted_while_open_elsewhere_stays_readable(self):
        data = os.urandom(100_000)
        self.write(self.a, "file", data)
        with open(self.at(self.b, "file"), "rb") as reader:
            os.unlink(self.at(self.a, "file"))
            self.write(self.a, "other", os.urandom(300_000))
            self.assertFalse(os.path.exists(self.at(self.b, "file")))
            self.assertFalse(os.path.exists(self.at(self.c, "file")))
            self.assertEqual(reader.read(), data)

    def test_sizes_change_while_maps_are_written_and_others_want_the_file(self):
        page = 4096
        self.write(self.a, "file", b"a" * 4 * page)

        def resize(node):
            with open(self.at(node, "file"), "r+b", buffering=0) as file, \
                    mmap.mmap(file.fileno(), 4 * page) as pages:
                for turn in range(60):
                    pages[turn % 100] ^= pages[page + turn]
                    try:
                        os.ftruncate(file.fileno(), (4 + turn % 3) * page)
                    except BlockingIOError:
                        pass  # another node's change of size went first

        def write(node):
            with open(self.at(node, "file"), "r+b", buffering=0) as file:
                for turn in range(60):
                    os.pread(file.fileno(), page, 0)
                    os.pwrite(file.fileno(), b"w", 3 * page + turn)

        self.assertEqual(in_parallel(lambda: resize(self.a), lambda: write(self.b), lambda: resize(self.c)), [None] * 3)
        contents = [self.read(node, "file") for node in self.nodes]
        self.assertEqual(contents, [contents[0]] * 3)
        self.assertEqual(contents[0][3 * page:3 * page + 60], b"w" * 60)

    def test_maps_give_a_file_nothing_back_that_another_node_has_cut_off(self):
        for length in (100, 6000) * 6:
            self.write(self.a, "file", b"a" * 10_000)
            with open(self.at(self.b, "file"), "r+b", buffering=0) as file, mmap.mmap(file.fileno(), 10_000) as pages:
                self.assertEqual(pages[:], b"a" * 10_000)
                for at in range(0, 10_000, 1000):
                    pages[at:at + 3] = b"map"
                os.truncate(self.at(self.a, "file"), length)
                os.fsync(file.fileno())
                expected = bytearray(b"a" * length)
                for at in range(0, length, 1000):
                    expected[at:at + 3] = b"map"
                for node in self.nodes:
                    self.assertEqual(self.read(node, "file"), bytes(expected))

    def test_directories_renamed_into_each_other_make_no_cycle(self):
        for number in range(20):
            for name in ("x", "y"):
                os.mkdir(self.at(self.a, f"{name}{number}"))
            # By descriptors, so that no path has to be found again once the other node has moved it.
            with self.opened(self.a, f"y{number}") as y, self.opened(self.b, f"x{number}") as x, \
                    self.opened(self.a, "") as top_a, self.opened(self.b, "") as top_b:
                moved = in_parallel(
                    lambda: os.rename(f"x{number}", "x", src_dir_fd=top_a, dst_dir_fd=y),
                    lambda: os.rename(f"y{number}", "y", src_dir_fd=top_b, dst_dir_fd=x))
            self.assertEqual(moved.count(None), 1, moved)
            there = [name for name in ("x", "y") if os.path.isdir(self.at(self.b, f"{name}{number}"))]
            self.assertEqual(len(there), 1)


if __name__ == "__main__":
    unittest.main()
