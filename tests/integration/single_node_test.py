#!/usr/bin/env python3
"""One node on a file LUN: POSIX operations through real FUSE mounts, kill -9 and remount, clean umount, refusals.

Usage: single_node_test.py [unittest options]. Needs root and /dev/fuse.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import tempfile
import unittest

import cluster

LIBC = ctypes.CDLL(None, use_errno=True)


def renameat2(old, new, flags):
    if LIBC.renameat2(-100, old.encode(), -100, new.encode(), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), new)


class Operations:
    """What must hold on every mount; the class that mixes it in says with which options."""
    options = ()

    def setUp(self):
        self.cluster = cluster.Cluster("file")
        self.cluster.__enter__()
        try:
            self.node = self.cluster.node(1, *self.options).mount()
        except BaseException:
            self.cluster.clear()
            raise
        self.failures_before = self.problems()

    def problems(self):
        outcome = self._outcome
        result = getattr(outcome, "result", None)
        return len(result.errors) + len(result.failures) if result else 0

    def tearDown(self):
        failed = self.problems() > self.failures_before
        self.cluster.__exit__(AssertionError if failed else None, None, None)

    def path(self, name=""):
        return self.node.path(name)

    def put(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)

    def get(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def remount(self):
        self.node.unmount()
        self.node.mount()

    def assert_fails(self, code, function, *arguments):
        with self.assertRaises(OSError) as caught:
            function(*arguments)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[code])

    def test_names(self):
        os.mkdir(self.path("d"), 0o750)
        self.put("d/file", b"hello")
        os.link(self.path("d/file"), self.path("link"))
        os.symlink("d/file", self.path("symlink"))
        os.mkfifo(self.path("fifo"), 0o600)
        os.mknod(self.path("device"), stat.S_IFCHR | 0o600, os.makedev(259, 70000))
        self.assert_fails(errno.EEXIST, os.mkdir, self.path("d"))
        self.assert_fails(errno.ENOTEMPTY, os.rmdir, self.path("d"))
        self.assert_fails(errno.ENOENT, os.stat, self.path("absent"))
        self.assert_fails(errno.ENOTDIR, os.stat, self.path("link/x"))
        self.assert_fails(errno.ENAMETOOLONG, os.stat, self.path("n" * 256))
        self.put("n" * 255, b"")
        for _ in range(2):
            self.assertEqual(self.get("link"), b"hello")
            self.assertEqual(os.readlink(self.path("symlink")), "d/file")
            self.assertEqual(os.stat(self.path("link")).st_nlink, 2)
            self.assertEqual(os.stat(self.path("d")).st_mode & 0o7777, 0o750)
            self.assertEqual(os.stat(self.path("device")).st_rdev, os.makedev(259, 70000))
            self.assertTrue(stat.S_ISFIFO(os.stat(self.path("fifo")).st_mode))
            self.assertEqual(sorted(os.listdir(self.path())),
                             sorted(["d", "link", "symlink", "fifo", "device", "n" * 255]))
            self.remount()
        os.unlink(self.path("d/file"))
        os.rmdir(self.path("d"))
        self.assertEqual(self.get("link"), b"hello")

    def test_renames(self):
        self.put("a", b"a")
        self.put("b", b"b")
        os.mkdir(self.path("d"))
        os.mkdir(self.path("d/e"))
        with self.assertRaises(FileExistsError):
            renameat2(self.path("a"), self.path("b"), 1)
        renameat2(self.path("a"), self.path("b"), 2)
        self.assertEqual((self.get("a"), self.get("b")), (b"b", b"a"))
        os.rename(self.path("a"), self.path("b"))
        self.assertEqual(self.get("b"), b"b")
        self.assertFalse(os.path.exists(self.path("a")))
        os.rename(self.path("b"), self.path("d/e/b"))
        self.assert_fails(errno.EINVAL, os.rename, self.path("d"), self.path("d/e/d"))
        os.rename(self.path("d/e"), self.path("e"))
        self.assertEqual(os.stat(self.path("d")).st_nlink, 2)
        self.assertEqual(self.get("e/b"), b"b")

    def test_file_data(self):
        seed = int.from_bytes(os.urandom(4), "big")
        chance = random.Random(seed)
        expected = bytearray()
        with open(self.path("f"), "w+b", buffering=0) as file:
            for step in range(300):
                where = f"seed {seed}, step {step}"
                if chance.random() < 0.1:
                    size = chance.randrange(2 << 20)
                    os.ftruncate(file.fileno(), size)
                    expected = expected[:size] + bytes(max(0, size - len(expected)))
                elif chance.random() < 0.5:
                    offset = chance.randrange(2 << 20)
                    data = chance.randbytes(chance.choice([1, 100, 4096, 5000, 65536, 300000]))
                    os.pwrite(file.fileno(), data, offset)
                    expected += bytes(max(0, offset + len(data) - len(expected)))
                    expected[offset:offset + len(data)] = data
                else:
                    offset = chance.randrange(2 << 20)
                    self.assertEqual(os.pread(file.fileno(), 70000, offset), bytes(expected[offset:offset + 70000]),
                                     where)
        self.assertEqual(self.get("f"), bytes(expected), f"seed {seed}")
        self.remount()
        self.assertEqual(self.get("f"), bytes(expected), f"seed {seed}")

    def test_direct_and_appending_writes(self):
        fd = os.open(self.path("direct"), os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        page = mmap.mmap(-1, 8192)
        page[:] = b"d" * 8192
        self.assertEqual(os.pwrite(fd, page, 4096), 8192)
        page[:] = b"x" * 8192
        self.assertEqual(os.preadv(fd, [page], 4096), 8192)
        self.assertEqual(page[:], b"d" * 8192)
        os.close(fd)
        self.assertEqual(self.get("direct"), bytes(4096) + b"d" * 8192)
        children = [subprocess.Popen(["sh", "-c", f"for i in $(seq 200); do echo {number} $i; done >> {self.path('log')}"])
                    for number in range(4)]
        for child in children:
            self.assertEqual(child.wait(), 0)
        lines = self.get("log").decode().splitlines()
        for number in range(4):
            self.assertEqual([line for line in lines if line.startswith(f"{number} ")],
                             [f"{number} {i}" for i in range(1, 201)])
        with open(self.path("late"), "wb", buffering=0) as file:
            file.write(b"start")
            fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
            self.put("late2", b"")
            with open(self.path("late"), "ab", buffering=0) as other:
                other.write(b" other")
            file.write(b" end")
        self.assertEqual(self.get("late"), b"start other end")

    def test_shared_maps(self):
        self.put("f", b"a" * 10000)
        with open(self.path("f"), "r+b") as file:
            with mmap.mmap(file.fileno(), 10000) as mapped:
                mapped[5000:5003] = b"map"
                mapped.flush()
                self.assertEqual(self.get("f")[4999:5004], b"amapa")
                os.pwrite(file.fileno(), b"write", 0)
                self.assertEqual(mapped[:6], b"writea")
        self.remount()
        self.assertEqual(self.get("f"), b"write" + b"a" * 4995 + b"map" + b"a" * 4997)

    def test_unlinked_but_open(self):
        with open(self.path("f"), "w+b", buffering=0) as file:
            file.write(b"still there")
            os.unlink(self.path("f"))
            self.assertEqual(os.listdir(self.path()), [])
            self.assertEqual(os.pread(file.fileno(), 100, 0), b"still there")
            file.write(b", and more")
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)
            self.assertEqual(os.pread(file.fileno(), 100, 0), b"still there, and more")

    def test_attributes(self):
        self.cluster.directory.chmod(0o755)  # for other users
        self.put("f", b"x")
        path = self.path("f")
        os.chmod(path, 0o4755)
        os.chown(path, 1000, 1001)
        facts = os.stat(path)
        self.assertEqual((facts.st_uid, facts.st_gid, facts.st_mode & 0o7777), (1000, 1001, 0o755))
        os.chmod(path, 0o4755)
        writer = subprocess.run(["setpriv", "--reuid=1000", "--regid=1001", "--clear-groups", "sh", "-c",
                                 f"echo y >> {path}"], check=False)
        self.assertEqual(writer.returncode, 0)
        self.assertEqual(os.stat(path).st_mode & 0o7777, 0o755, "a write clears the suid bit")
        os.utime(path, ns=(1_000_000_007, -1))
        for _ in range(2):
            facts = os.stat(path)
            self.assertEqual((facts.st_atime_ns, facts.st_mtime_ns), (1_000_000_007, -1))
            self.remount()
        reader = subprocess.run(["setpriv", "--reuid=1002", "--regid=1002", "--clear-groups", "sh", "-c",
                                 f"echo z >> {path}"], stderr=subprocess.DEVNULL, check=False)
        self.assertNotEqual(reader.returncode, 0, "the kernel checks permissions")

    def test_large_directory(self):
        names = [f"a name of some length, so that it takes several blocks {number}" for number in range(3000)]
        os.mkdir(self.path("d"))
        for name in names:
            os.close(os.open(self.path("d/" + name), os.O_CREAT | os.O_EXCL))
        self.assertEqual(sorted(os.listdir(self.path("d"))), sorted(names))
        for name in names[::2]:
            os.unlink(self.path("d/" + name))
        self.assertEqual(sorted(os.listdir(self.path("d"))), sorted(names[1::2]))
        self.remount()
        self.assertEqual(sorted(os.listdir(self.path("d"))), sorted(names[1::2]))
        shutil.rmtree(self.path("d"))

    def test_statfs(self):
        before = os.statvfs(self.path())
        self.put("f", bytes(32 << 20))
        fd = os.open(self.path("f"), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        after = os.statvfs(self.path())
        self.assertEqual(before.f_bsize, 4096)
        self.assertGreaterEqual(before.f_bfree, after.f_bfree)
        self.assertGreater(before.f_files, 1000)

    def test_killed_daemon(self):
        synced = os.urandom(200_000)
        with open(self.path("synced"), "wb") as file:
            file.write(synced)
            file.flush()
            os.fsync(file.fileno())
        writer = subprocess.Popen(["sh", "-c", f"while echo line; do :; done > {self.path('unsynced')}"],
                                  stderr=subprocess.DEVNULL)
        cluster.wait_for(lambda: os.path.exists(self.path("unsynced")) and os.stat(self.path("unsynced")).st_size > 0,
                         "the writer")
        self.node.kill()
        writer.wait()
        self.node.mount()
        self.assertEqual(self.get("synced"), synced)

    def test_termination_unmounts_cleanly(self):
        self.put("f", b"kept")
        self.node.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.node.process.wait(60), 0)
        self.node.process = None
        self.assertFalse(os.path.ismount(self.path()))
        self.node.mount()
        self.assertEqual(self.get("f"), b"kept")

    def test_read_only(self):
        self.put("f", b"text")
        self.node.unmount()
        self.node.options.append("ro")
        self.node.mount()
        self.assertEqual(self.get("f"), b"text")
        self.assert_fails(errno.EROFS, self.put, "g", b"")
        self.node.unmount()
        image = pathlib.Path(self.cluster.lun.source)
        image.chmod(0o444)
        self.node.options = ["ro", "norecovery"]
        self.node.mount()
        self.assertEqual(self.get("f"), b"text")
        self.assert_fails(errno.EROFS, self.put, "g", b"")


class LocalTest(Operations, unittest.TestCase):
    options = ("local",)


class ClusteredTest(Operations, unittest.TestCase):
    pass


class RefusalTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="cawfs-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        (self.directory / "m").mkdir()
        self.image = self.directory / "img"
        with open(self.image, "wb") as file:
            file.truncate(64 << 20)

    def mount(self, *arguments):
        return cluster.run(cluster.BIN / "mount.cawfs", *arguments, check=False, timeout=60)

    def assert_refused(self, code, words, *arguments):
        done = self.mount(*arguments)
        self.assertEqual(done.returncode, code, done.stdout)
        self.assertIn(words, done.stdout)

    def test_usage(self):
        where = (self.image, self.directory / "m")
        self.assert_refused(1, "bananas", *where, "-o", "ro,bananas")
        self.assert_refused(1, "norecovery", *where, "-o", "norecovery")
        self.assert_refused(1, "poll", *where, "-o", "poll=0")
        self.assert_refused(1, "SOURCE")
        self.assert_refused(1, "no directory", self.image, self.image)
        self.assert_refused(1, "absent", self.image, self.directory / "absent")
        self.assertEqual(self.mount("--help").returncode, 0)
        self.assertIn("norecovery", self.mount("--help").stdout)

    def test_sources(self):
        self.assert_refused(32, "mkfs.cawfs", self.image, self.directory / "m")
        self.assert_refused(32, "absent", self.directory / "absent", self.directory / "m")
        short = self.directory / "short"
        cluster.run(cluster.BIN / "mkfs.cawfs", self.image)
        with open(self.image, "rb") as whole, open(short, "wb") as file:
            file.write(whole.read(1 << 20))
        self.assert_refused(32, str(short), short, self.directory / "m")

    def test_background(self):
        cluster.run(cluster.BIN / "mkfs.cawfs", "--dead-time", 2, self.image)
        done = self.mount(self.image, self.directory / "m", "-n", "-s", "-v", "-o", "rw,_netdev,nosuid,local")
        try:
            self.assertEqual(done.returncode, 0, done.stdout)
            with open("/proc/self/mounts", encoding="utf-8") as mounts:
                line = next(line.split() for line in mounts if str(self.directory) in line)
            self.assertEqual(line[0], str(self.image))
            self.assertEqual(line[2], "fuse.cawfs")
            self.assertIn("nosuid", line[3].split(","))
            (self.directory / "m/f").write_text("x")
            daemon = cluster.run("pgrep", "-f", f"mount.cawfs {self.image}").stdout.split()
            self.assertEqual(len(daemon), 1, "the daemon is the mount.cawfs process, its command line unchanged")
            self.assert_refused(32, str(self.image), self.image, self.directory / "m", "-o", "local")
        finally:
            cluster.run("umount", self.directory / "m", check=False)
        cluster.wait_for(lambda: cluster.run("pgrep", "-f", f"mount.cawfs {self.image}", check=False).returncode == 1,
                         "the daemon's end")


if __name__ == "__main__":
    unittest.main(verbosity=2)
