"""A socket at which something answers as a CARLA server would at first, or does not."""

import socket
from contextlib import contextmanager
from threading import Thread


def version(text):
    """The answer of a CARLA server to the request that it was sent; MessagePack-RPC, as the client takes it."""
    return lambda request: (
        b"\x94\x01" + request[2:3] + b"\xc0\x91\x92\x01" + bytes([0xA0 | len(text)]) + text.encode()
    )


def refusal(request):
    return b"\x94\x01" + request[2:3] + b"\xa2no\xc0"


def nothing(request):
    return b""


@contextmanager
def served(answer):
    """The port; ``answer`` makes of the bytes of a request those of the answer, or None to hang up."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = Thread(target=_serve, args=(listener, answer))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # Wakes the thread, which closing alone would not.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener, answer):
    threads = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            break
        connection.settimeout(10.0)
        threads.append(Thread(target=_converse, args=(connection, answer)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def _converse(connection, answer):
    with connection:
        try:
            while request := connection.recv(4096):
                said = answer(request)
                if said is None:
                    return
                connection.sendall(said)
        except OSError:
            pass
