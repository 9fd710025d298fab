"""Real clusters for tests and the demo: a LUN, daemons that mount it, and what happens to them.

A test opens a Cluster, which formats the LUN; leaving it unmounts every node and runs fsck.cawfs, which must find nothing.
Everything waits for conditions. The programs are taken from $CAWFS_BIN.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CAWFS_BIN", ROOT / "build/release/bin"))
LUN_KINDS = ["file", "lio512", "lio4096"]


def wait_for(condition, what, seconds=30.0, every=0.01):
    """Returns condition()'s first true value; fails, naming `what`, if none comes."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(every)


def run(*command, check=True, timeout=120, **options):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
    return done


class FileLun:
    """A sparse file; all nodes are processes of this host."""

    def __init__(self, directory, size):
        self.source = str(directory / "lun.img")
        with open(self.source, "wb") as file:
            file.truncate(size)

    def on_host(self, _number):
        return []

    def close(self):
        pass


class LioLun:
    """A real iSCSI target; node N runs in host N's network namespace."""

    def __init__(self, directory, size, block, hosts=3, write_delay=0):
        self.directory = directory / "lio"
        options = ["--size", str(size), "--block", str(block), "--hosts", str(hosts)]
        if write_delay:
            options += ["--write-delay", str(write_delay)]
        self.source = self.control("start", *options).stdout.strip().splitlines()[-1]

    def control(self, verb, *arguments):
        return run(ROOT / "tests/lab/lio-lun", verb, self.directory, *arguments)

    def on_host(self, number):
        return [str(ROOT / "tests/lab/lio-lun"), "exec", str(self.directory), str(number)]

    def close(self):
        self.control("stop")


class Node:
    """One mount: the daemon process and its mount point."""

    def __init__(self, cluster, number, options=()):
        self.cluster = cluster
        self.number = number
        self.options = list(options)
        self.flags = []
        self.directory = cluster.directory / f"node{number}"
        self.directory.mkdir(exist_ok=True)
        self.log = cluster.directory / f"node{number}.log"
        self.process = None

    def start(self):
        """Starts the daemon; mounted() tells when it has mounted."""
        command = self.cluster.lun.on_host(self.number) + [str(BIN / "mount.cawfs"), self.cluster.lun.source,
                                                           str(self.directory), "-f", *self.flags]
        options = list(self.options)
        if isinstance(self.cluster.lun, LioLun):
            options.append(f"initiator=iqn.2026-11.cawfs.test:node{self.number}")
        if options:
            command += ["-o", ",".join(options)]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def mounted(self):
        if self.process.poll() is not None:
            raise AssertionError(f"node {self.number}: mount.cawfs exited {self.process.returncode}\n{self.read_log()}")
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            return any(line.split()[1] == str(self.directory) for line in mounts)

    def mount(self, seconds=60.0):
        self.start()
        wait_for(self.mounted, f"the mount of node {self.number}; log:\n{self.read_log()}", seconds)
        return self

    def read_log(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def path(self, name=""):
        return str(self.directory / name)

    def kill(self):
        """SIGKILL to the daemon, as a host that dies; its mount point is cleared away."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None
        run("umount", "-l", self.directory, check=False)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def is_stopped(self):
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        return stat.rpartition(")")[2].split()[0] == "T"

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def unmount(self, seconds=60.0):
        run("umount", self.directory)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"node {self.number}: the daemon did not end after umount\n{self.read_log()}") from None
        self.process = None
        if status != 0:
            raise AssertionError(f"node {self.number}: the daemon exited {status}\n{self.read_log()}")

    def destroy(self):
        """For failures: whatever is left goes, and nothing is checked."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        run("umount", "-l", self.directory, check=False)


class Cluster:
    def __init__(self, kind="file", size=512 << 20, dead_time=2, hosts=3, mkfs=(), write_delay=0):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="cawfs-test-"))
        self.nodes = []
        self.lun = None
        self.check_at_end = True
        try:
            if kind == "file":
                self.lun = FileLun(self.directory, size)
            else:
                self.lun = LioLun(self.directory, size, int(kind.removeprefix("lio")), hosts, write_delay)
            self.tool("mkfs.cawfs", "--dead-time", dead_time, *mkfs, self.lun.source)
        except BaseException:
            self.clear()
            raise

    def tool(self, name, *arguments, host=1, **options):
        return run(*self.lun.on_host(host), BIN / name, *arguments, **options)

    def node(self, number, *options):
        node = Node(self, number, options)
        self.nodes.append(node)
        return node

    def mount(self, count, *options):
        return [self.node(number, *options).mount() for number in range(1, count + 1)]

    def fsck(self):
        return self.tool("fsck.cawfs", "-n", self.lun.source, check=False)

    def status(self):
        return json.loads(self.tool("cawfs", "status", "--json", self.lun.source).stdout)

    def logs(self):
        return "\n".join(f"--- node {node.number}\n{node.read_log()}" for node in self.nodes)

    def clear(self):
        for node in self.nodes:
            node.destroy()
        if self.lun:
            self.lun.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        try:
            if kind is None:
                for node in self.nodes:
                    if node.process is not None:
                        node.unmount()
                if self.check_at_end:
                    checked = self.fsck()
                    if checked.returncode != 0:
                        raise AssertionError(f"fsck.cawfs: exit {checked.returncode}\n{checked.stdout}\n{self.logs()}")
            else:
                print(self.logs(), file=sys.stderr)
        finally:
            self.clear()
