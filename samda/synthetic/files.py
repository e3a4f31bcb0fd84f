"""The set as files: ``OUT/fibsem``, ``OUT/sstem`` and so on, with NNN.png (8 bits, grey) and NNN_mask.png (1 bit)."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from node.errors import InputError
from samda.synthetic.domains import DOMAINS, domain_names, domain_of
from samda.synthetic.fields import Array
from samda.synthetic.rendering import render
from samda.synthetic.tissue import Mask, grow

LEAST, MOST = 96, 4096  # pixels of a side: in less there is hardly a cell, and so no mitochondrion


def micrograph(domain: int, size: int, seed: int, number: int) -> tuple[Array, Mask]:
    """Image ``number`` of a domain, (size, size) from 0 to 1, and its mitochondria. Equal arguments, equal images."""
    rng, seen = np.random.default_rng([seed, domain, number]), domain_of(domain, seed)
    tissue = grow(rng, size, seen.anatomy)
    return render(rng, tissue, seen.microscope), tissue.mask


def synthesise(out: Path, images: int, size: int, seed: int, domains: int = len(DOMAINS)) -> None:
    """Write ``images`` micrographs of every domain, of ``size`` x ``size`` pixels, into a new folder.

    It has its name when all is in it. ``InputError`` where it is there already or cannot be made, and for numbers out
    of their range.
    """
    for name, value, least, most in (
        ("images", images, 1, 999),
        ("size", size, LEAST, MOST),
        ("seed", seed, 0, 2**63),
        ("domains", domains, len(DOMAINS), 99),
    ):
        if not least <= value <= most:
            raise InputError(f"--{name} {value}: {least} to {most} are allowed")
    if out.exists():
        raise InputError(f"{out}: exists already; name a folder that does not, or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".coe.", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out}: cannot be made: {error.strerror}") from None
    try:
        for index, name in enumerate(domain_names(domains)):
            _write(temporary / name, index, images, size, seed)
        made = {"made_by": "coe samda synthesise", "domains": domains, "images": images, "size": size, "seed": seed}
        (temporary / "manifest.json").write_text(json.dumps(made, indent=2) + "\n")
        temporary.chmod(0o755)
        temporary.rename(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, domain: int, images: int, size: int, seed: int) -> None:
    folder.mkdir()
    for number in range(images):
        image, mask = micrograph(domain, size, seed, number)
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(folder / f"{number:03}.png")
        Image.fromarray(mask).save(folder / f"{number:03}_mask.png")
