"""licodec on a freedesktop.org desktop, for one user: MIME type, thumbnailer, and a line for file(1).

Written below $XDG_DATA_HOME (Shared MIME-info Database 0.21; the .thumbnailer entry as GNOME, Cinnamon,
MATE and Xfce read it) and into ~/.magic, which file(1) reads beside its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from licodec.files import beside

MIME = "image/x-lic"
BEGIN, END = "# licodec: begin", "# licodec: end"
_PACKAGE = f"""<?xml version="1.0" encoding="UTF-8"?>
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">
  <mime-type type="{MIME}">
    <comment>licodec neural image</comment>
    <generic-icon name="image-x-generic"/>
    <magic priority="60"><match type="string" offset="0" value="\\x89LIC\\r\\n\\x1a\\n"/></magic>
    <glob pattern="*.lic"/>
  </mime-type>
</mime-info>
"""
# the byte after the layout's is the model's name, of one letter more than the layout's lower four bits say
_MAGIC = f"""{BEGIN}
0	string	\\x89LIC\\r\\n\\x1a\\n	licodec neural image
!:mime	{MIME}
!:ext	lic
>8	byte	x	\\b, version %d
{END}
"""


@dataclass(frozen=True)
class Desktop:
    """Where the files of a user go."""

    data: Path
    home: Path

    @property
    def package(self) -> Path:
        return self.data / "mime/packages/licodec.xml"

    @property
    def thumbnailer(self) -> Path:
        return self.data / "thumbnailers/licodec.thumbnailer"

    @property
    def magic(self) -> Path:
        return self.home / ".magic"

    def install(self) -> list[Path]:
        """Write all of it, in place of what an earlier licodec wrote; gives the files. Raises OSError."""
        _write(self.package, _PACKAGE)
        _write(self.thumbnailer, _thumbnailer())
        written = [self.package, self.thumbnailer]
        if not self.magic.is_dir():  # a folder of magic holds what its owner compiled; that is theirs
            _write(self.magic, _without_ours(self.magic) + _MAGIC)
            written.append(self.magic)
        self._update()
        return written

    def uninstall(self) -> list[Path]:
        """Remove what `install` wrote; gives the files that were there. Raises OSError."""
        removed = [path for path in (self.package, self.thumbnailer) if path.exists()]
        for path in removed:
            path.unlink()
        if self.magic.is_file() and BEGIN in self.magic.read_text():
            removed.append(self.magic)
            if rest := _without_ours(self.magic):
                _write(self.magic, rest)
            else:
                self.magic.unlink()
        self._update()
        return removed

    def _update(self) -> None:
        """The database that programs read is made from the packages; without the tool the desktop does it at login."""
        tool = shutil.which("update-mime-database")
        if tool and (self.data / "mime/packages").is_dir():
            subprocess.run([tool, self.data / "mime"], check=False, capture_output=True)


def of_user() -> Desktop:
    """The desktop of who runs this."""
    home = Path.home()
    return Desktop(Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share"), home)


def _thumbnailer() -> str:
    command = shutil.which(sys.argv[0]) if Path(sys.argv[0]).name == "licodec" else shutil.which("licodec")
    words = [str(Path(command).absolute())] if command else [sys.executable, "-m", "licodec"]
    line = " ".join(f'"{word}"' if " " in word else word for word in words)
    return f"[Thumbnailer Entry]\nTryExec={words[0]}\nExec={line} thumbnail %i -s %s -o %o\nMimeType={MIME};\n"


def _without_ours(path: Path) -> str:
    """A file's text without the lines that licodec wrote; nothing if there is no file."""
    text = path.read_text() if path.exists() else ""
    before, _, rest = text.partition(BEGIN)
    ours, _, after = rest.partition(END + "\n")
    return before + after if ours else text


def _write(path: Path, text: str) -> None:
    with beside(path) as temporary:
        temporary.write_text(text)
