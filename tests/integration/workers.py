"""Processes that work on a mount while a test watches or breaks things. Run as `workers.py KIND ARGUMENTS...`.

append FILE WRITER COUNT   appends COUNT records to FILE with O_APPEND, one write each
churn DIRECTORY WRITER JOURNAL
                           creates, writes, fsyncs, renames and deletes files below DIRECTORY until it is killed or a
                           call fails; after each fsync has returned, says so in JOURNAL, a file elsewhere
"""
import os
import sys
import zlib


def record(writer, number):
    """A line of varying length that shows whether any of its bytes is missing or another's."""
    body = f"{writer}:{number:08d}:" + "abcdefghij"[number % 10] * (number * 7 % 90)
    return f"{body}:{zlib.crc32(body.encode()):08x}\n".encode()


def parse(line):
    """(writer, number) of a record, or None for a torn one."""
    body, _, crc = line.rpartition(":")
    if not body or crc != f"{zlib.crc32(body.encode()):08x}":
        return None
    writer, number, _ = body.split(":", 2)
    return writer, int(number)


def content(name, length):
    """What a churned file holds: made from its name, so that a survivor can tell."""
    pattern = (name + "|").encode()
    return (pattern * (length // len(pattern) + 1))[:length]


def append(path, writer, count):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number in range(count):
        data = record(writer, number)
        written = os.write(file, data)
        if written != len(data):
            sys.exit(f"short write: {written} of {len(data)}")
    os.close(file)


def churn(directory, writer, journal_path):
    journal = os.open(journal_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    number = 0
    while True:
        name = f"{writer}-{number:06d}"
        length = 200 if number % 4 else 150_000
        path = os.path.join(directory, name)
        file = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(file, content(name, length))
        if number % 2 == 0:
            os.fsync(file)
        os.rename(path + ".tmp", path)
        if number % 2 == 0:
            os.fsync(file)
            os.write(journal, f"synced {name} {length}\n".encode())
        os.close(file)
        if number % 2 == 1:
            os.unlink(path)
        os.write(journal, b"round 5\n")
        number += 1


if __name__ == "__main__":
    kind, arguments = sys.argv[1], sys.argv[2:]
    if kind == "append":
        append(arguments[0], arguments[1], int(arguments[2]))
    elif kind == "churn":
        try:
            churn(*arguments)
        except OSError as error:
            sys.exit(f"{error}")
    else:
        sys.exit(__doc__)
