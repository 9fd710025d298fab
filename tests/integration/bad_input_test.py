#!/usr/bin/env python3
"""The shipped programs against what is no good cawfs file system, and against wrong command lines: each ends by itself,
with the exit status that its kind of program has, and names the thing. Corrupted images are tried more thoroughly in
process (corrupt_images_test); here it is whole processes and real mounts.

Usage: bad_input_test.py [unittest options]. Needs root and /dev/fuse. CAWFS_SEED repeats a run.
"""
import os
import pathlib
import random
import shutil
import struct
import subprocess
import tempfile
import unittest

import cluster

SIZE = 64 << 20
PATIENCE = 90  # seconds; the dead-time of the images is 2
BLOCK = 4096

# The exit statuses that a program may end with, at worst, on a bad source. e2fsprogs and util-linux: mkfs 1, fsck 8
# (operational error) or 4 (problems found), mount 32.
FAILED = {"mkfs.cawfs": {1}, "mount.cawfs": {32}, "fsck.cawfs": {8}, "cawfs": {1}, "cawfs-fence": {1}, "cawfs-replay": {4}}
USAGE = {"mkfs.cawfs": 2, "mount.cawfs": 1, "fsck.cawfs": 16, "cawfs": 2, "cawfs-fence": 2, "cawfs-replay": 2,
         "umount.fuse.cawfs": 1}


class Tools(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="cawfs-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.mount_point = self.directory / "m"
        self.mount_point.mkdir()
        self.addCleanup(cluster.run, "umount", "-l", self.mount_point, check=False)

    def path(self, name):
        return self.directory / name

    def sparse(self, name, size=SIZE):
        with open(self.path(name), "wb") as file:
            file.truncate(size)
        return self.path(name)

    def formatted(self, name):
        image = self.sparse(name)
        cluster.run(cluster.BIN / "mkfs.cawfs", "-q", "--dead-time", 2, image)
        return image

    def populated(self, name):
        """A file system with files, directories and links."""
        image = self.formatted(name)
        cluster.run(cluster.BIN / "mount.cawfs", image, self.mount_point)
        for number in range(20):
            (self.mount_point / f"file{number}").write_bytes(bytes([65 + number]) * number * 900)
        (self.mount_point / "directory/below").mkdir(parents=True)
        for number in range(100):
            (self.mount_point / f"directory/a longer name, for several blocks of names {number}").touch()
        os.symlink("file3", self.mount_point / "link")
        self.unmount()
        return image

    def unmount(self):
        """Returns when the daemon has gone."""
        cluster.run(cluster.BIN / "umount.fuse.cawfs", self.mount_point, timeout=PATIENCE)

    def run_tool(self, tool, *arguments, user=None):
        command = [cluster.BIN / tool, *arguments]
        if user:
            command = ["setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups", *command]
        done = cluster.run(*command, check=False, timeout=PATIENCE)
        self.assertGreaterEqual(done.returncode, 0, f"{tool} ended by a signal: {done.stdout}")
        self.assertNotIn("assertion", done.stdout)
        return done

    def command(self, tool, source):
        return {"mkfs.cawfs": [source], "mount.cawfs": [source, self.mount_point], "fsck.cawfs": ["-n", source],
                "cawfs": ["status", source], "cawfs-fence": [source], "cawfs-replay": [source]}[tool]

    def assert_refused(self, tool, source, words=()):
        done = self.run_tool(tool, *self.command(tool, source))
        self.assertIn(done.returncode, FAILED[tool], f"{tool} {source}: {done.stdout}")
        self.assertIn(str(source), done.stdout, tool)
        if words:
            self.assertTrue(any(word in done.stdout for word in words), f"{tool} {source}: {done.stdout}")
        self.assertFalse(os.path.ismount(self.mount_point))


class SourceTest(Tools):
    def refuse_all(self, source, words, tools=tuple(FAILED)):
        for tool in tools:
            with self.subTest(tool=tool, source=str(source)):
                self.assert_refused(tool, source, words)

    def test_no_lun(self):
        self.refuse_all(self.path("absent"), ["no such file"])
        self.refuse_all(self.mount_point, ["neither a file nor"])
        self.refuse_all(self.sparse("empty", 0), ["shorter than one block"])
        self.refuse_all(self.sparse("tiny", 100), ["shorter than one block"])
        self.assert_refused("mkfs.cawfs", self.sparse("small", 1 << 20), ["too small"])

    READERS = ("mount.cawfs", "fsck.cawfs", "cawfs", "cawfs-fence", "cawfs-replay")

    def test_nothing_on_it(self):
        self.refuse_all(self.sparse("zeroes"), ["right device"], self.READERS)

    def test_another_file_system(self):
        image = self.sparse("ext2")
        cluster.run("mke2fs", "-q", "-F", image)
        self.refuse_all(image, ["right device", "ext2"])
        table = self.sparse("partitions")
        with open(table, "r+b") as file:
            file.seek(446)
            file.write(struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\0\0", 2048, 100000))
            file.seek(510)
            file.write(b"\x55\xaa")
        self.refuse_all(table, ["right device", "partition table"])
        with open(image, "rb") as file:
            file.seek(1080)
            self.assertEqual(file.read(2), b"\x53\xef", "a refusal changed the ext2 file system")

    def test_a_refusal_is_one_line_and_leaves_nothing(self):
        """In what mkfs.cawfs says, and beside what it refuses; the next try must not stumble over the last."""
        foreign = self.sparse("ext2")
        cluster.run("mke2fs", "-q", "-F", foreign)
        small = self.sparse("small", 1 << 20)
        new = self.path("new")
        there = sorted(os.listdir(self.directory))
        for words, line in [("--force destroys it", [foreign]), ("leave --size out", ["--size", "64M", foreign]),
                            ("at least", [small]), ("at least", ["--size", "2M", new]),
                            ("less than one block", ["--size", "10", new]), ("--size", [new]),
                            ("neither a file nor", [self.mount_point])]:
            with self.subTest(line=line):
                done = self.run_tool("mkfs.cawfs", *line)
                self.assertIn(done.returncode, {1, 2})
                self.assertIn(words, done.stdout)
                self.assertEqual(done.stdout.count("\n"), 1, done.stdout)
                self.assertEqual(sorted(os.listdir(self.directory)), there)
        self.assertEqual(self.run_tool("mkfs.cawfs", "-q", "--size", "64M", new).returncode, 0)

    def test_exit_codes(self):
        """Of fsck.cawfs at boot, and of cawfs-replay for a slot that is none."""
        image = self.formatted("image")
        self.assertEqual(self.run_tool("fsck.cawfs", "-a", image).returncode, 0)
        for source in (self.path("absent"), self.sparse("zeroes")):
            done = self.run_tool("fsck.cawfs", "-a", source)
            self.assertEqual(done.returncode, 8)
            self.assertIn(str(source), done.stdout)
        done = self.run_tool("cawfs-replay", "--slot", 9, image)
        self.assertEqual(done.returncode, 4)
        self.assertIn("slot 9 has no journal", done.stdout)

    def test_cut_off(self):
        whole = self.populated("whole").read_bytes()
        for size in (66_000, 70_000, 1 << 20, 20 << 20, SIZE - (1 << 20)):
            image = self.path(f"cut{size}")
            image.write_bytes(whole[:size])
            with self.subTest(size=size):
                self.refuse_all(image, ["cut off", "right device"], self.READERS)
                # There is a cawfs on it, or something so small that none fits.
                self.assert_refused("mkfs.cawfs", image)

    def test_write_protected(self):
        image = self.populated("image")
        shutil.copy(image, self.path("copy"))
        cluster.run("mount", "--bind", self.directory, self.directory)
        try:
            cluster.run("mount", "-o", "remount,ro,bind", self.directory)
            copy = self.path("copy")
            self.assert_refused("mkfs.cawfs", copy, ["write-protected", "read-only", "refuse writing"])
            self.assert_refused("mount.cawfs", copy, ["ro,norecovery"])
            self.assertEqual(self.run_tool("fsck.cawfs", "-n", copy).returncode, 0)
            self.assertEqual(self.run_tool("cawfs", "status", copy).returncode, 0)
            self.assertEqual(self.run_tool("cawfs-fence", copy).returncode, 0)
            self.assertEqual(self.run_tool("cawfs-replay", copy).returncode, 0)
            self.assertIn(self.run_tool("cawfs-fence", "--slot", 0, copy).returncode, {1})
            self.assertEqual(self.run_tool("mount.cawfs", copy, self.mount_point, "-o", "ro,norecovery").returncode, 0)
            self.assertEqual((self.mount_point / "file7").read_bytes(), b"H" * 6300)
            self.unmount()
        finally:
            cluster.run("umount", "-l", self.directory, check=False)


class UsageTest(Tools):
    def test_options(self):
        image = self.sparse("image")
        wrong = {
            "mkfs.cawfs": [["--banana", image], [], ["--slots", "65", image], ["--slots", "many", image],
                           ["--journal-size", "1", image], ["--dead-time", "0.1", image], ["--uuid", "x", image],
                           ["--label", "l" * 65, image], ["--size", "banana", image], ["--logical-block", "1024", image]],
            "mount.cawfs": [["--banana", image, self.mount_point], [], [image], [image, self.mount_point, "-o", "banana"],
                            [image, self.mount_point, "-o", "poll=x"], [image, self.mount_point, "-o", "initiator"],
                            [image, self.mount_point, "-o", "ro=1"], [image, self.mount_point, "-o", "norecovery"],
                            [image, self.path("absent")], [image, image]],
            "fsck.cawfs": [["--banana"], [], ["-n"], [image], ["-y", image], ["-n", "-p", image]],
            "cawfs": [[], ["banana"], ["status"], ["status", "--banana", image]],
            "cawfs-fence": [[], ["--banana", image], ["--slot", "64", image], ["--slot", "-1", image],
                            ["--force", image], ["--self-test", "--slot", "1", image], ["--rounds", "5", image]],
            "cawfs-replay": [[], ["--banana", image], ["--slot", "64", image], ["--slot", "x", image]],
            "umount.fuse.cawfs": [[], ["--banana", self.mount_point], [self.mount_point, "more"]],
        }
        for tool, lines in wrong.items():
            for line in lines:
                with self.subTest(tool=tool, line=line):
                    done = self.run_tool(tool, *line)
                    self.assertEqual(done.returncode, USAGE[tool], done.stdout)
                    self.assertTrue(done.stdout.startswith(f"{tool}: "), done.stdout)
                    banana = [word for word in line if "banana" in str(word)]
                    if banana and tool != "mkfs.cawfs" or "--banana" in line:
                        self.assertIn("banana", done.stdout)
        self.assertEqual(os.stat(image).st_blocks, 0, "a wrong command line wrote something")

    def test_help(self):
        for tool in USAGE:
            done = self.run_tool(tool, "--help")
            self.assertEqual(done.returncode, 0)
            for word in ("Usage", "Exit codes"):
                self.assertIn(word, done.stdout, tool)
            self.assertNotIn("SCSI disk", done.stdout, "kernel disks are not opened yet")
            for flag in ("-V", "--version"):
                done = self.run_tool(tool, flag)
                self.assertEqual((done.returncode, done.stdout.split()[0]), (0, tool))

    def test_umount_of_what_is_not_ours(self):
        done = self.run_tool("umount.fuse.cawfs", self.mount_point)
        self.assertEqual(done.returncode, 32)
        self.assertIn("no cawfs is mounted", done.stdout)


class CorruptionTest(Tools):
    """Bytes anywhere in use, 20 images: no crash and no hang, whatever the answer."""

    def test_corrupted_images(self):
        seed = int(os.environ.get("CAWFS_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
        chance = random.Random(seed)
        good = self.populated("good")
        bytes_of_good = good.read_bytes()
        used = [at for at in range(0, SIZE, BLOCK) if any(bytes_of_good[at:at + BLOCK])]
        fixed = [at for at in used if at < 64 * BLOCK * 12]
        found = 0
        for number in range(20):
            image = self.path(f"bad{number}")
            self.corrupt(chance, bytes_of_good, used, fixed, image)
            with self.subTest(seed=seed, image=number):
                found += self.try_all(image)
            image.unlink()
        self.assertGreater(found, 5, f"seed {seed}: fsck.cawfs found next to nothing")

    def corrupt(self, chance, good, used, fixed, image):
        data = bytearray(good)
        for _ in range(chance.choice([1, 3, 20])):
            at = chance.choice(used if chance.random() < 0.6 else fixed)
            if chance.random() < 0.2:
                data[at:at + BLOCK] = bytes(BLOCK)
            elif chance.random() < 0.3:
                other = chance.choice(used)
                data[at:at + BLOCK] = good[other:other + BLOCK]
            else:
                start = at + chance.randrange(512)
                data[start:start + 8] = chance.choice([bytes(8), b"\xff" * 8, chance.randbytes(8)])
        image.write_bytes(data)

    def try_all(self, image):
        """1 if fsck.cawfs finds that the image is bad."""
        checked = self.run_tool("fsck.cawfs", "-n", image)
        self.assertIn(checked.returncode, {0, 4, 8}, checked.stdout)
        self.assertIn(self.run_tool("cawfs", "status", image).returncode, {0, 1})
        self.assertIn(self.run_tool("cawfs", "status", "--json", image).returncode, {0, 1})
        self.assertIn(self.run_tool("cawfs-fence", image).returncode, {0, 1})
        self.assertIn(self.run_tool("cawfs-replay", image).returncode, {0, 1, 4})
        self.assertIn(self.run_tool("cawfs-replay", "--replay", image).returncode, {0, 1, 3, 4})
        refused = self.run_tool("mkfs.cawfs", image)
        self.assertIn(refused.returncode, {0, 1}, refused.stdout)
        if refused.returncode == 0:
            return 1  # nothing on it looked like a cawfs any more
        mounted = self.run_tool("mount.cawfs", image, self.mount_point)
        self.assertIn(mounted.returncode, {0, 32}, mounted.stdout)
        if mounted.returncode == 0:
            script = f"cd {self.mount_point} && cat file* link; ls -lR; touch new; rm file5; mv file6 file7; mkdir d; sync -f ."
            try:
                subprocess.run(["sh", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE,
                               check=False)
            except subprocess.TimeoutExpired:
                self.fail(f"the mount of {image} hangs")
            # It may say that not everything could be written back.
            self.assertIn(self.run_tool("umount.fuse.cawfs", self.mount_point).returncode, {0, 32})
            self.assertFalse(os.path.ismount(self.mount_point))
        self.assertIn(self.run_tool("fsck.cawfs", "-n", image).returncode, {0, 4, 8})
        return 0 if checked.returncode == 0 else 1


if __name__ == "__main__":
    unittest.main(verbosity=2)
