"""Prints a folder, as lines of base64 of a tar.gz. Its text runs as a job of its own: it needs Python and nothing else.

``send.py FOLDER MOST``: ``:`` and base64 of so many bytes, at the end ``=`` and their SHA-256; or ``!`` and why not,
where the folder is not there or its files have more than ``MOST`` bytes.
"""

import base64
import hashlib
import sys
import tarfile
from pathlib import Path

LINE = 3 * 1024  # bytes; Ray's log is read in pieces of some lines, or 20,000 characters


class Lines:
    """A file of which lines are printed."""

    def __init__(self) -> None:
        self.rest, self.digest = b"", hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Print what fills lines."""
        self.digest.update(data)
        self.rest += data
        whole = len(self.rest) // LINE * LINE
        for start in range(0, whole, LINE):
            print(":" + base64.b64encode(self.rest[start : start + LINE]).decode())
        self.rest = self.rest[whole:]
        return len(data)

    def close(self) -> None:
        """Print the last line, and the digest."""
        if self.rest:
            print(":" + base64.b64encode(self.rest).decode())
        print("=" + self.digest.hexdigest())


def send(folder: str, most: int) -> None:
    """Print a folder."""
    root = Path(folder)
    if not root.is_dir():
        print(f"!{folder} is not there any more")
        return
    paths = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    size = sum(path.stat().st_size for path in paths)
    if size > most:
        print(f"!{folder} has {size:,} bytes, and at most {most:,} are sent so; copy it from there")
        return
    lines = Lines()
    with tarfile.open(fileobj=lines, mode="w|gz") as tar:  # type: ignore[call-overload]
        for path in paths:
            tar.add(path, path.relative_to(root), recursive=False)
    lines.close()


if __name__ == "__main__":
    send(sys.argv[1], int(sys.argv[2]))
