"""Where published data lie on this machine, and whether they are what they should be.

Nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "TORCHCRAM_DATA"
SUMS = "SHA256SUMS.txt"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published data set.

    Attributes:
        name, page, licence, credit: what it is, its publisher's page, and what its users owe.
        packed: name of the packed file.
        sha256: checksum of the packed file.
        own: the publisher's own files, in words.
    """

    name: str
    page: str
    licence: str
    credit: str
    packed: str
    sha256: str
    own: str

    def folder(self, folder: Path | str | None) -> Path:
        """Return the folder to look in: the given one, else that of the environment variable
        ``TORCHCRAM_DATA``.

        Raises:
            FileNotFoundError: if neither names a folder that exists.
        """
        place = folder if folder is not None else os.environ.get(VARIABLE)
        if place is None:
            raise self.absent("no folder is given")
        if not Path(place).is_dir():
            raise self.absent(f"there is no folder {str(place)!r}")
        return Path(place)

    def absent(self, reason: str) -> FileNotFoundError:
        """Return the error of data that are not there; it says how to get them."""
        return FileNotFoundError(
            f"{self.name}: {reason}. Get it from {self.page} ({self.licence}), then pass the folder that "
            f"holds {self.own} (or the packed file {self.packed}) as folder=..., or name it in the "
            f"environment variable {VARIABLE}"
        )

    def packed_file(self, folder: Path, *, verify: bool) -> Path | None:
        """Return the packed file, if the folder has it.

        Raises:
            ValueError: if it is to be verified and has another checksum.
        """
        file = folder / self.packed
        if not file.is_file():
            return None
        if verify:
            check_sum(file, self.sha256)
        return file


def check_sum(file: Path, expected: str) -> None:
    """Raise ValueError unless the file has the SHA-256 sum."""
    with file.open("rb") as handle:
        actual = hashlib.file_digest(handle, "sha256").hexdigest()
    if actual != expected:
        raise ValueError(
            f"{file} is damaged or another version: its SHA-256 is {actual[:12]}..., expected "
            f"{expected[:12]}...: fetch it again"
        )


def check_listed(folder: Path, files: list[Path]) -> None:
    """Check files against the publisher's list of sums, if the folder has one; files that it does not list
    pass.

    Raises:
        ValueError: for a file with another sum.
    """
    if not (folder / SUMS).is_file():
        return
    listed = dict(
        line.split(maxsplit=1)[::-1] for line in (folder / SUMS).read_text().splitlines() if line.strip()
    )
    for file in files:
        expected = listed.get(file.relative_to(folder).as_posix())
        if expected is not None:
            check_sum(file, expected)
