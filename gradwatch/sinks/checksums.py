"""CRC-32C of many messages at once.

But for its beginning and its end the checksum is linear over XOR: that of a message is the XOR of what each byte
adds, which depends on the byte and on how many bytes follow it. numpy looks the bytes of all messages up together;
Python alone takes 0.2 us for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["masked_crc32c"]

Words = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]

# Bytes that are looked up together, each in a table of its own.
_CHUNK = 128

_POLYNOMIAL = 0x82F63B78


def masked_crc32c(messages: Sequence[bytes]) -> Words:
    """The checksums of messages of at least 4 bytes each, masked as a TFRecord file holds them, ``[messages]``."""
    crc = np.zeros(len(messages), dtype=np.uint32)
    for added in _added(_chunks(messages)).T:
        # What was added so far goes on as if it had been XORed to the four bytes that come next.
        crc = added ^ _added(crc.astype("<u4").view(np.uint8).reshape(-1, 4))
    crc = np.invert(crc)
    masked: Words = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)
    return masked


def _chunks(messages: Sequence[bytes]) -> Bytes:
    """``[messages, chunks, bytes]``, all ending together: zeros before the first byte add nothing."""
    count = -(-max(map(len, messages)) // _CHUNK)
    # A checksum begins with all bits set, as if the first four bytes were flipped.
    flipped = (bytes(0xFF ^ byte for byte in one[:4]) + one[4:] for one in messages)
    rows = b"".join(one.rjust(count * _CHUNK, b"\0") for one in flipped)
    return np.frombuffer(rows, dtype=np.uint8).reshape(len(messages), count, _CHUNK)


def _added(values: Bytes) -> Words:
    """What the first bytes of a chunk add by its end, ``[..., bytes]`` -> ``[...]``."""
    table, offsets = _table()
    words: Words = np.bitwise_xor.reduce(table.take(values + offsets[: values.shape[-1]]), axis=-1)
    return words


@lru_cache(maxsize=1)
def _table() -> tuple[Words, npt.NDArray[np.intp]]:
    """What a byte adds, one place of a chunk after another, and where each place begins."""
    last, one = np.arange(256, dtype=np.uint32), np.uint32(1)
    for _ in range(8):
        last = (last >> one) ^ (last & one) * np.uint32(_POLYNOMIAL)
    places = [last]
    while len(places) < _CHUNK:
        places.insert(0, (places[0] >> np.uint32(8)) ^ last[places[0] & 0xFF])
    return np.concatenate(places), 256 * np.arange(_CHUNK)
