"""Members of a zip file, whatever they are compressed with.

inspect_ai compresses with Zstandard (method 93), which Python reads from 3.14 on.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from importlib import import_module
from pathlib import Path
from types import TracebackType

__all__ = ["ZipMembers"]

_ZSTD = 93
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


class ZipMembers:
    """Reads one member after the other of a zip file.

    Args:
        path: of the file.

    Raises:
        ValueError: it is no zip file, or it is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise ValueError(
                f"{path} is no whole zip file: {error}. Copy it again; where a run was killed, "
                "`inspect log recover` may save what is there."
            ) from None
        self._raw = path.open("rb")

    def __enter__(self) -> ZipMembers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()
        self._raw.close()

    @property
    def names(self) -> list[str]:
        """Of the members, in their order."""
        return self._zip.namelist()

    def read(self, name: str) -> bytes:
        """What a member holds.

        Raises:
            ValueError: it is damaged.
            ModuleNotFoundError: nothing here reads Zstandard.
        """
        member = self._zip.getinfo(name)
        try:
            if member.compress_type != _ZSTD:
                return self._zip.read(member)
            self._raw.seek(member.header_offset)
            header = _LOCAL_HEADER.unpack(self._raw.read(_LOCAL_HEADER.size))
            self._raw.seek(header[-2] + header[-1], io.SEEK_CUR)  # its name and extra fields
            data = _unpacked(self._raw.read(member.compress_size))
        except ModuleNotFoundError:
            raise
        except Exception as error:  # each of the libraries has errors of its own
            raise ValueError(f"{self._path} is damaged: {name} cannot be read: {error}.") from None
        if zlib.crc32(data) != member.CRC:
            raise ValueError(f"{self._path} is damaged: the checksum of {name} is wrong.")
        return data


def _unpacked(data: bytes) -> bytes:
    """Of one or several frames of Zstandard."""
    try:
        return bytes(import_module("compression.zstd").decompress(data))  # Python 3.14
    except ModuleNotFoundError:
        pass
    try:
        decompressor = import_module("zstandard").ZstdDecompressor()
        with decompressor.stream_reader(data, read_across_frames=True) as reader:
            return bytes(reader.read())
    except ModuleNotFoundError:
        pass
    try:
        pa = import_module("pyarrow")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "inspect_ai compresses .eval files with Zstandard, which Python reads from 3.14 on: "
            "pip install zstandard. Or turn it into JSON: inspect log convert --to json "
            "--output-dir DIR LOG."
        ) from None
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as reader:
        return bytes(reader.read())
