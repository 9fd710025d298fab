#!/usr/bin/env python3
"""How a cawfs is mounted: through mount(8) and fstab, read-only beside a node that writes, without joining on a
write-protected copy, locally; what other users and special files may do; how it is unmounted.

Usage: mount_modes_test.py [unittest options]. Needs root and /dev/fuse. It runs in a mount namespace of its own, in which
/sbin/mount.cawfs and /sbin/umount.fuse.cawfs lead to the programs under test, and in which fusectl is mounted.
"""
import ctypes
import errno
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import unittest

import cluster

HELPERS = ("mount.cawfs", "umount.fuse.cawfs")
FUSECTL = "/sys/fs/fuse/connections"
CLONE_NEWNS = 0x00020000


def setUpModule():
    """Lays the helpers over /sbin for this process and its children: nothing stays behind, however it ends."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare: this test needs root")
    cluster.run("mount", "--make-rprivate", "/")
    if not os.path.ismount(FUSECTL):
        cluster.run("mount", "-t", "fusectl", "fusectl", FUSECTL)
    with tempfile.TemporaryDirectory() as directory:
        cluster.run("mount", "-t", "tmpfs", "cawfs-test", directory)
        layers = [pathlib.Path(directory) / name for name in ("upper", "work")]
        for layer in layers:
            layer.mkdir()
        for name in HELPERS:
            (layers[0] / name).symlink_to(cluster.BIN / name)
        sbin = os.path.realpath("/sbin")
        cluster.run("mount", "-t", "overlay", "cawfs-test", sbin, "-o",
                    f"lowerdir={sbin},upperdir={layers[0]},workdir={layers[1]}")
        cluster.run("umount", "-l", directory)


def as_nobody(*command):
    return cluster.run("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", *command, check=False)


def mount_line(directory):
    """Of /proc/self/mounts; None if nothing is mounted there."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        lines = [line.split() for line in mounts if line.split()[1] == str(directory)]
    return lines[-1] if lines else None


def daemons(image):
    """Processes whose command line names the image, with their arguments."""
    found = {}
    for directory in pathlib.Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue
        if str(image) in words and "mount.cawfs" in words[0]:
            found[int(directory.name)] = words
    return found


def user_table():
    """Options of mounts that the kernel does not keep."""
    path = pathlib.Path("/run/mount/utab")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


class Modes(unittest.TestCase):
    def setUp(self):
        self.cluster = cluster.Cluster("file")
        self.addCleanup(self.cluster.clear)
        self.image = pathlib.Path(self.cluster.lun.source)
        self.directory = self.cluster.directory

    def assert_fails(self, code, function, *arguments):
        with self.assertRaises(OSError) as caught:
            function(*arguments)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[code])

    def leave_and_check(self):
        """Unmounts every node; the file system must be clean."""
        for node in self.cluster.nodes:
            if node.process is not None:
                node.unmount()
        checked = self.cluster.fsck()
        self.assertEqual(checked.returncode, 0, checked.stdout)


class NodesTest(Modes):
    def test_read_only_beside_a_writer(self):
        writer = self.cluster.node(1).mount()
        reader = self.cluster.node(2, "ro").mount()
        for text in ("first", "second, longer", "third"):
            pathlib.Path(writer.path("file")).write_text(text, encoding="utf-8")
            self.assertEqual(pathlib.Path(reader.path("file")).read_text(encoding="utf-8"), text)
        os.rename(writer.path("file"), writer.path("renamed"))
        self.assertEqual(os.listdir(reader.path()), ["renamed"])
        self.assertFalse(os.path.exists(reader.path("file")))
        held = os.open(reader.path("renamed"), os.O_RDONLY)
        os.unlink(writer.path("renamed"))
        self.assertEqual(os.pread(held, 10, 0), b"third")
        os.close(held)
        name = reader.path("x")
        self.assert_fails(errno.EROFS, os.mkdir, name)
        self.assert_fails(errno.EROFS, os.open, name, os.O_CREAT | os.O_WRONLY)
        pathlib.Path(writer.path("kept")).touch()
        kept = reader.path("kept")
        for call in (lambda: os.open(kept, os.O_RDWR), lambda: os.unlink(kept), lambda: os.rename(kept, name),
                     lambda: os.link(kept, name), lambda: os.symlink("a", name), lambda: os.truncate(kept, 5),
                     lambda: os.chmod(kept, 0o600), lambda: os.utime(kept)):
            self.assert_fails(errno.EROFS, call)
        self.leave_and_check()

    def test_discard(self):
        def fsync(path):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        node = self.cluster.node(1, "discard").mount()
        file = pathlib.Path(node.path("file"))
        before = self.image.stat().st_blocks
        file.write_bytes(os.urandom(16 << 20))
        fsync(file)
        self.assertGreater(self.image.stat().st_blocks, before + (15 << 11))
        file.unlink()
        fsync(node.path())
        cluster.wait_for(lambda: self.image.stat().st_blocks < before + (1 << 11), "the file's space in the image")
        self.leave_and_check()

    def test_no_recovery_of_a_dead_node(self):
        node = self.cluster.node(1).mount()
        content = os.urandom(300_000)
        pathlib.Path(node.path("in place")).write_bytes(content)
        node.unmount()
        node.mount()
        with open(node.path("in the journal"), "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        node.kill()
        copy = self.directory / "copy"
        shutil.copy(self.image, copy)
        copy.chmod(0o444)
        before = copy.read_bytes()
        point = self.directory / "copy.mounted"
        point.mkdir()
        # Write-protected for root too: the file system that it is seen through is.
        cluster.run("mount", "--bind", self.directory, self.directory)
        try:
            cluster.run("mount", "-o", "remount,ro,bind", self.directory)
            refused = cluster.run(cluster.BIN / "mount.cawfs", copy, point, check=False)
            self.assertEqual(refused.returncode, 32)
            self.assertIn("norecovery", refused.stdout)
            cluster.run(cluster.BIN / "mount.cawfs", copy, point, "-o", "ro,norecovery")
            self.assertEqual((point / "in place").read_bytes(), content)
            self.assert_fails(errno.EROFS, (point / "new").touch)
            cluster.run(cluster.BIN / "umount.fuse.cawfs", point)
        finally:
            cluster.run("umount", "-l", self.directory, check=False)
        self.assertEqual(copy.read_bytes(), before, "a mount without recovery wrote")
        self.assertEqual(list(self.directory.glob("copy?*")), [point], "it left something beside the copy")
        node.mount()
        self.assertEqual(pathlib.Path(node.path("in the journal")).read_bytes(), content)
        self.leave_and_check()

    def test_a_damaged_journal_costs_its_slot_only(self):
        """The host's own slot comes first; where it cannot be recovered the same mount takes another. (What its node had
        locked stays locked; here that is nothing.)"""
        node = self.cluster.node(1).mount()
        node.kill()
        (dead,) = [one["slot"] for one in self.cluster.status()["nodes"] if one["state"] == "active"]
        with open(self.image, "r+b") as image:
            image.seek((32 + dead) * 4096 + 264)
            image.seek(int.from_bytes(image.read(8), "little") * 4096)
            image.write(b"\xff" * 8192)  # both copies of the journal's header
        node.mount()
        self.assertIn(f"the journal of slot {dead} cannot be replayed", node.read_log())
        states = {one["slot"]: one["state"] for one in self.cluster.status()["nodes"]}
        self.assertEqual(states.pop(dead), "recovering")
        self.assertIn("active", states.values())
        node.unmount()

    def test_local_is_alone(self):
        local = self.cluster.node(1, "local").mount()
        pathlib.Path(local.path("file")).write_text("x", encoding="utf-8")
        other = self.directory / "other"
        other.mkdir()
        for options in ((), ("-o", "local")):
            refused = cluster.run(cluster.BIN / "mount.cawfs", self.image, other, *options, check=False)
            self.assertEqual(refused.returncode, 32, refused.stdout)
        local.unmount()
        shared = self.cluster.node(2).mount()
        refused = cluster.run(cluster.BIN / "mount.cawfs", self.image, other, "-o", "local", check=False)
        self.assertEqual(refused.returncode, 32, refused.stdout)
        self.assertEqual(os.listdir(shared.path()), ["file"])
        self.leave_and_check()

    def test_termination(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            node = self.cluster.node(1).mount()
            pathlib.Path(node.path(f"file{number}")).write_bytes(b"x" * 5_000_000)
            node.process.send_signal(number)
            self.assertEqual(node.process.wait(60), 0, node.read_log())
            node.process = None
            self.assertIsNone(mount_line(node.directory))
            self.assertNotIn(str(node.directory), user_table())
        self.leave_and_check()
        node = self.cluster.node(1).mount()
        self.assertEqual(os.stat(node.path(f"file{signal.SIGINT}")).st_size, 5_000_000)
        self.leave_and_check()

    def test_missing_privileges_are_named(self):
        """A daemon that may not lock itself in memory, or be marked as an I/O flusher, says what it lacks, and mounts."""
        self.cluster.lun.on_host = lambda _number: ["prlimit", "--memlock=8388608",
                                                    "setpriv", "--bounding-set=-sys_resource,-ipc_lock"]
        node = self.cluster.node(1).mount()
        log = node.read_log()
        self.assertRegex(log, "cannot lock the daemon in memory: .*CAP_IPC_LOCK")
        self.assertRegex(log, "cannot mark the daemon as an I/O flusher: .*CAP_SYS_RESOURCE")
        self.leave_and_check()


class UsersTest(Modes):
    def setUp(self):
        super().setUp()
        self.directory.chmod(0o755)

    def test_other_users(self):
        node = self.cluster.node(1).mount()
        os.chmod(node.path(), 0o755)
        private = pathlib.Path(node.path("private"))
        private.write_text("secret", encoding="utf-8")
        private.chmod(0o600)
        public = pathlib.Path(node.path("public"))
        public.write_text("known", encoding="utf-8")
        public.chmod(0o644)
        os.mkdir(node.path("shared"))
        os.chmod(node.path("shared"), 0o1777)
        # allow_other: they get in; default_permissions: no further than the modes say.
        self.assertEqual(as_nobody("cat", public).stdout, "known")
        self.assertIn("Permission denied", as_nobody("cat", private).stdout)
        self.assertIn("Permission denied", as_nobody("touch", node.path("new")).stdout)
        self.assertIn("Permission denied", as_nobody("sh", "-c", f"echo x > {public}").stdout)
        self.assertEqual(as_nobody("touch", node.path("shared/theirs")).returncode, 0)
        facts = os.stat(node.path("shared/theirs"))
        self.assertEqual(facts.st_uid, int(cluster.run("id", "-u", "nobody").stdout))
        self.assertNotEqual(as_nobody("chown", "root", node.path("shared/theirs")).returncode, 0)
        pathlib.Path(node.path("shared/ours")).touch()
        self.assertNotEqual(as_nobody("rm", "-f", node.path("shared/ours")).returncode, 0, "the sticky bit")
        self.leave_and_check()

    def test_suid_and_devices(self):
        for options, works in (((), True), (("nosuid", "nodev", "noexec"), False)):
            node = self.cluster.node(1, *options).mount()
            program = pathlib.Path(node.path("id"))
            if works:
                shutil.copy("/usr/bin/id", program)
                program.chmod(0o4755)
                os.mknod(node.path("null"), stat.S_IFCHR, os.makedev(1, 3))
                os.chmod(node.path("null"), 0o666)
            self.assertTrue(os.stat(program).st_mode & stat.S_ISUID)
            identity = as_nobody(program, "-u")
            writing = as_nobody("sh", "-c", f"echo x > {node.path('null')}")
            if works:
                self.assertEqual(identity.stdout.strip(), "0")
                self.assertEqual(writing.returncode, 0, writing.stdout)
            else:
                self.assertIn("Permission denied", writing.stdout)
                with self.assertRaises(PermissionError):
                    subprocess.run([program], check=False)
            node.unmount()
        self.leave_and_check()


def threads(pid, state):
    """The process's threads that are in that state ("D": waiting in the kernel for what no signal can end)."""
    found = set()
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            stat_line = (thread / "stat").read_text(encoding="utf-8")
        except OSError:
            continue  # it has ended
        if stat_line.rpartition(")")[2].split()[0] == state:
            found.add(int(thread.name))
    return found


class KilledDaemonTest(Modes):
    """Whatever the daemon was doing when it was killed, nobody waits for it: calls fail with ENOTCONN."""

    READ = "import sys\nwhile True:\n with open(sys.argv[1], 'rb') as f:\n  while f.read(1 << 17): pass"
    WRITE = ("import os, sys\nfd = os.open(sys.argv[1], os.O_WRONLY)\n"
             "while True:\n for at in range(0, 1 << 23, 1 << 18): os.pwrite(fd, b'x', at)")

    def worker(self, program, path):
        process = subprocess.Popen(["python3", "-c", program, path], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def stop_while_pages_are_dropped(self, daemon):
        """Stops the daemon when a thread of it waits in the kernel for an answer that the daemon itself owes."""
        def stopped_so():
            daemon.send_signal(signal.SIGSTOP)
            cluster.wait_for(lambda: daemon.pid in threads(daemon.pid, "T"), "the daemon to stop")
            waiting = threads(daemon.pid, "D")
            for _ in range(100):
                waiting &= threads(daemon.pid, "D")
                if not waiting:
                    daemon.send_signal(signal.SIGCONT)
                    return False
                time.sleep(0.001)
            return True
        cluster.wait_for(stopped_so, "a thread that waits while pages are dropped", 60)

    def watchdog(self, node):
        """The daemon's one child, which is no daemon by its name nor by its command line."""
        listed = cluster.run("ps", "--ppid", node.process.pid, "-o", "pid=,comm=,args=").stdout.split()
        self.assertEqual(listed[1:], ["cawfs-watchdog", "cawfs-watchdog"])
        return int(listed[0])

    def assert_ends(self, pid):
        def ended():
            state = cluster.run("ps", "-p", pid, "-o", "state=", check=False).stdout.strip()
            return state in ("", "Z")
        cluster.wait_for(ended, "the watchdog's end")

    def drop_pages_and_end(self, node, where, *signals):
        """`where` maps paths as the node sees them to where the test does."""
        other = self.cluster.node(2).mount()
        pathlib.Path(other.path("f")).write_bytes(bytes(1 << 23))
        watchdog = self.watchdog(node)
        minor = os.minor(os.stat(where(node.path())).st_dev)
        readers = [self.worker(self.READ, where(node.path("f"))) for _ in range(4)]
        writer = self.worker(self.WRITE, other.path("f"))
        # First of all where the test fails, which else leaves processes that nothing can kill.
        self.addCleanup(pathlib.Path(f"{FUSECTL}/{minor}/abort").write_text, "1")
        self.stop_while_pages_are_dropped(node.process)
        writer.kill()
        for number in signals:
            node.process.send_signal(number)
        for reader in readers:
            self.assertNotEqual(reader.wait(10), 0, "a reader")
        self.assert_fails(errno.ENOTCONN, os.stat, where(node.path("f")))
        self.assertEqual(node.process.wait(10), -signals[0])
        self.assert_ends(watchdog)

    def test_while_the_kernel_drops_pages(self):
        node = self.cluster.node(1).mount()
        self.drop_pages_and_end(node, lambda path: path, signal.SIGKILL)

    def test_crash_while_the_kernel_drops_pages(self):
        node = self.cluster.node(1).mount()
        self.drop_pages_and_end(node, lambda path: path, signal.SIGSEGV, signal.SIGCONT)

    def test_in_a_mount_namespace_without_fusectl(self):
        space = subprocess.Popen(["unshare", "-m", "sleep", "1000"])
        self.addCleanup(space.wait)
        self.addCleanup(space.kill)
        inside = ["nsenter", "-m", "-t", str(space.pid)]
        own = os.readlink("/proc/self/ns/mnt")
        cluster.wait_for(lambda: os.readlink(f"/proc/{space.pid}/ns/mnt") != own, "the namespace")
        cluster.run(*inside, "umount", FUSECTL)
        self.cluster.lun.on_host = lambda number: inside if number == 1 else []
        node = self.cluster.node(1).start()
        where = lambda path: f"/proc/{space.pid}/root{path}"  # noqa: E731
        cluster.wait_for(lambda: os.path.ismount(where(node.path())), "the mount")
        self.drop_pages_and_end(node, where, signal.SIGKILL)

    def test_the_watchdog_ends_with_the_daemon(self):
        node = self.cluster.node(1).mount()
        watchdog = self.watchdog(node)
        node.unmount()
        self.assert_ends(watchdog)
        node.mount()
        watchdog = self.watchdog(node)
        node.kill()
        self.assert_ends(watchdog)


class NewerFileSystemTest(Modes):
    SUPERBLOCK = 64 << 10
    RO_COMPAT = 40

    def test_what_may_only_be_read_is_not_recovered(self):
        """A journal with unknown features must not be replayed; who could not replay it joins nothing."""
        node = self.cluster.node(1).mount()
        pathlib.Path(node.path("file")).write_text("text", encoding="utf-8")
        node.unmount()
        with open(self.image, "r+b") as image:
            image.seek(self.SUPERBLOCK)
            block = bytearray(image.read(4096))
            block[self.RO_COMPAT + 7] = 0x80
            block[4:8] = bytes(4)
            block[4:8] = crc32c(block).to_bytes(4, "little")
            image.seek(self.SUPERBLOCK)
            image.write(block)
        before = self.image.read_bytes()
        point = self.directory / "newer"
        point.mkdir()
        self.addCleanup(cluster.run, "umount", "-l", point, check=False)
        for options in ("rw", "ro"):
            refused = cluster.run(cluster.BIN / "mount.cawfs", self.image, point, "-o", options, check=False)
            self.assertEqual(refused.returncode, 32, refused.stdout)
            self.assertIn("ro,norecovery", refused.stdout)
        self.assertEqual(self.image.read_bytes(), before)
        cluster.run(cluster.BIN / "mount.cawfs", self.image, point, "-o", "ro,norecovery")
        self.assertEqual((point / "file").read_text(encoding="utf-8"), "text")
        cluster.run(cluster.BIN / "umount.fuse.cawfs", point)


class SystemTest(Modes):
    """Through mount(8) and umount(8)."""

    def setUp(self):
        super().setUp()
        self.point = self.directory / "point"
        self.point.mkdir()
        self.addCleanup(cluster.run, "umount", "-l", self.point, check=False)

    def unmount(self):
        """As soon as umount(8) returns the daemon has written everything back, left the slot, and gone."""
        cluster.run("umount", self.point)
        self.assertIsNone(mount_line(self.point))
        self.assertNotIn(str(self.point), user_table())
        states = [node["state"] for node in self.cluster.status()["nodes"]]
        self.assertNotIn("active", [state.lower() for state in states])

    def test_mount_by_type(self):
        cluster.run("mount", "-t", "cawfs", self.image, self.point, "-o", "nosuid,noatime")
        line = mount_line(self.point)
        self.assertEqual(line[0], str(self.image))
        self.assertEqual(line[2], "fuse.cawfs")
        self.assertLessEqual({"nosuid", "noatime", "allow_other", "default_permissions"}, set(line[3].split(",")))
        running = daemons(self.image)
        self.assertEqual(len(running), 1, running)
        words = next(iter(running.values()))
        self.assertTrue(words[0].endswith("mount.cawfs"), words)
        self.assertEqual(words[1:3], [str(self.image), str(self.point)])
        for number in range(5):
            (self.point / f"file{number}").write_bytes(os.urandom(3_000_000))
        self.unmount()
        checked = self.cluster.fsck()
        self.assertEqual(checked.returncode, 0, checked.stdout)
        cluster.wait_for(lambda: not daemons(self.image), "the daemon's end")

    def test_busy(self):
        cluster.run("mount", "-t", "cawfs", self.image, self.point)
        with open(self.point / "file", "wb"):
            busy = cluster.run("umount", self.point, check=False)
            self.assertEqual(busy.returncode, 32)
            self.assertIn("busy", busy.stdout)
        self.unmount()

    def test_a_mount_that_lives_on_elsewhere(self):
        cluster.run("mount", "-t", "cawfs", self.image, self.point)
        second = self.directory / "second"
        second.mkdir()
        cluster.run("mount", "--bind", self.point, second)
        cluster.run("umount", self.point)
        (second / "file").write_text("still there", encoding="utf-8")
        # umount(8) would not ask the helper about a bind mount: mount(8) has noted nothing about it.
        cluster.run(cluster.BIN / "umount.fuse.cawfs", second)
        checked = self.cluster.fsck()
        self.assertEqual(checked.returncode, 0, checked.stdout)

    def test_killed_daemon_is_reported(self):
        cluster.run("mount", "-t", "cawfs", self.image, self.point)
        (pid,) = daemons(self.image)
        os.kill(pid, signal.SIGKILL)
        cluster.wait_for(lambda: not daemons(self.image), "the daemon's end")
        done = cluster.run("umount", self.point, check=False)
        self.assertEqual(done.returncode, 32)
        self.assertIn("killed", done.stdout)
        self.assertIsNone(mount_line(self.point))

    def test_lost_data_is_reported(self):
        """What was written finds no room under the image. Each open file is told once, and umount if none was."""
        disk = self.directory / "disk"
        disk.mkdir()
        cluster.run("mount", "-t", "tmpfs", "-o", "size=80M", "cawfs-test", disk)
        self.addCleanup(cluster.run, "umount", "-l", disk)
        image = disk / "image"
        cluster.run(cluster.BIN / "mkfs.cawfs", "--size", "128M", "--slots", "2", "--no-discard", image)
        for told in (True, False):
            cluster.run("mount", "-t", "cawfs", image, self.point)
            (self.point / "small").write_text("small")
            fds = [os.open(self.point / "file", os.O_CREAT | os.O_RDWR) for _ in range(2)]
            os.fsync(fds[0])
            space = os.statvfs(disk)
            filler = disk / "filler"
            with open(filler, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(space.f_bavail * space.f_frsize - (2 << 20), 1))
            os.pwrite(fds[0], os.urandom(6 << 20), 0)
            for fd in fds:
                if told:
                    self.assert_fails(errno.ENOSPC, os.fsync, fd)
                    os.fsync(fd)
                os.close(fd)
            done = cluster.run("umount", self.point, check=False)
            self.assertEqual(done.returncode, 0 if told else 32, done.stdout)
            self.assertEqual("1 file could not be stored" in done.stdout, not told, done.stdout)
            filler.unlink()
            checked = cluster.run(cluster.BIN / "fsck.cawfs", "-n", image)
            self.assertIn("clean", checked.stdout)

    def test_fstab(self):
        fstab = self.directory / "fstab"
        fstab.write_text(f"{self.image} {self.point} cawfs _netdev,nofail,x-systemd.requires=x,noatime 0 0\n",
                         encoding="utf-8")
        cluster.run("mount", "-T", fstab, self.point)
        self.assertEqual(mount_line(self.point)[2], "fuse.cawfs")
        lines = [line for line in user_table().splitlines() if str(self.point) in line]
        self.assertTrue(any("_netdev" in line for line in lines), "systemd unmounts it before the network goes")
        (self.point / "file").write_text("x", encoding="utf-8")
        self.unmount()
        # All of type cawfs, as at boot once the network is there.
        cluster.run("mount", "-a", "-t", "cawfs", "-T", fstab)
        self.assertEqual((self.point / "file").read_text(encoding="utf-8"), "x")
        self.unmount()

    def test_unknown_options_are_refused_by_name(self):
        done = cluster.run("mount", "-t", "cawfs", self.image, self.point, "-o", "noatime,bananas=3", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("bananas", done.stdout)
        self.assertIsNone(mount_line(self.point))


if __name__ == "__main__":
    unittest.main(verbosity=2)
