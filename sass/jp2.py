"""The boxes of a JPEG 2000 file, before GDAL follows them: it goes round for ever where one has no length."""

import struct
from typing import BinaryIO

SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
NESTED = (b"jp2h", b"asoc", b"res ")
"""Boxes that hold boxes, as far as GDAL looks into them."""
MOST, DEEPEST = 10_000, 16


def malformed(stream: BinaryIO) -> str | None:
    """Say where the boxes of a file do not lie one after the other and one in the other.

    A file that is cut short is left to what reads its pixels.
    """
    size = stream.seek(0, 2)
    waiting, count = [(0, size, 0)], 0
    while waiting:
        at, end, depth = waiting.pop()
        while at + 8 <= end:
            stream.seek(at)
            head = stream.read(16)
            length, kind = struct.unpack(">I4s", head[:8])
            own = 8
            if length == 1 and len(head) == 16:
                length, own = struct.unpack(">8xQ", head)[0], 16
            if length == 0 and not depth:
                break  # the last one: all that follows
            count += 1
            if length < own or (depth and at + length > end) or depth > DEEPEST or count > MOST:
                return f"it is a JPEG 2000 file whose boxes make no sense at byte {at:,}"
            if kind in NESTED:
                waiting.append((at + own, min(at + length, end), depth + 1))
            at += length
    return None
