import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.sinks.checksums import added, flipped, masked, masked_crc32c, weights


def one_by_one(message):
    """CRC-32C bit by bit, from its definition in RFC 3720, and TFRecord's mask."""
    crc = 0xFFFFFFFF
    for byte in message:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@given(st.lists(st.binary(min_size=4, max_size=400), min_size=1, max_size=4))
def test_messages_of_any_lengths_have_the_checksums_of_the_definition(messages):
    for message in messages:
        assert int.from_bytes(masked_crc32c(message), "little") == one_by_one(message)


@given(st.lists(st.binary(min_size=7, max_size=7), min_size=1, max_size=5))
def test_what_is_the_same_in_many_messages_is_added_up_once(middles):
    places, length = np.array([2, 3, 9, 10, 11, 30, 36]), 37
    common = bytearray(range(length))
    for place in places:
        common[place] = 0
    messages = []
    for middle in middles:
        messages.append(bytearray(common))
        for place, value in zip(places, middle, strict=True):
            messages[-1][place] = value
    of_bits = weights(length)
    values = np.array([list(middle) for middle in middles], dtype=np.uint8).T
    sums = added(values, of_bits.reshape(-1, 8)[places].ravel()) ^ added(flipped(common)[:, None], of_bits)
    assert masked(sums).tolist() == [one_by_one(message) for message in messages]
