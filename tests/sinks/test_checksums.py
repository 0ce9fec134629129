from hypothesis import given
from hypothesis import strategies as st

from gradwatch.sinks.checksums import masked_crc32c


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
    assert masked_crc32c(messages).tolist() == [one_by_one(message) for message in messages]


def test_lengths_around_those_that_are_looked_up_together():
    messages = [bytes(range(256)) * 2 + bytes(extra) for extra in range(130)]
    messages += [message[:length] for message, length in zip(messages, range(4, 134), strict=True)]
    assert masked_crc32c(messages).tolist() == [one_by_one(message) for message in messages]
