"""``python -m cluster`` is ``coe``, where the packages are that it takes."""

from __future__ import annotations

import gc
import sys
from importlib import import_module

HOW = (
    "pip install -r requirements.lock, or in a job: coe submit --pip, or ray job submit --runtime-env-json "
    """'{"pip": "requirements.lock"}'"""
)


def main() -> None:
    """Run the command line; what is not installed is one line, too."""
    gc.set_threshold(100_000)  # next to nothing makes cycles: looking for them as often as by default slows a start
    try:
        import_module("cluster.command_line").main()
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in ("None", "cluster", "node", "samda"):
            raise
        print(f"coe: error: the package {package} is not installed here: {HOW}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
