"""What HEIF and AVIF (ISO base media files) say beside their pictures: colour by code points, depth."""

from __future__ import annotations

_PLAIN = {(1, 13), (1, 1), (1, 2), (2, 2), (1, 6)}  # sRGB and video's BT.709, which viewers show as sRGB


def cicp(primaries: int, transfer: int) -> bytes | None:
    """Code points (ITU-T H.273) as PNG's cICP chunk has them, for RGB of full range; None for plain sRGB."""
    if (primaries, transfer) in _PLAIN or 2 in (primaries, transfer):
        return None
    return bytes([primaries, transfer, 0, 1])


def nclx(head: bytes) -> bytes | None:
    """The same of a file's first `colr` box of the kind `nclx`."""
    offset = head.find(b"colrnclx")
    if offset < 0 or len(head) < offset + 12:
        return None
    return cicp(int.from_bytes(head[offset + 8 : offset + 10]), int.from_bytes(head[offset + 10 : offset + 12]))


def av1_depth(head: bytes) -> int:
    """Bits a sample of an AVIF, 8, 10 or 12, by its `av1C` box; 8 if there is none (AV1-ISOBMFF, section 2.3)."""
    offset = head.find(b"av1C")
    if offset < 0 or len(head) < offset + 7:
        return 8
    flags = head[offset + 6]
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8
