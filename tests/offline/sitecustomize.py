"""On the PYTHONPATH of a process, this makes every attempt to reach another machine an error."""

import socket

HERE = {"127.0.0.1", "::1", "localhost", ""}


def _only_here(reach, position):
    def guarded(*arguments, **options):
        target = arguments[position] if len(arguments) > position else options.get("host")
        host = target[0] if isinstance(target, tuple) else target
        if host not in HERE:
            raise RuntimeError(f"network access attempted: {target}")
        return reach(*arguments, **options)

    return guarded


socket.socket.connect = _only_here(socket.socket.connect, 1)
socket.socket.connect_ex = _only_here(socket.socket.connect_ex, 1)
socket.getaddrinfo = _only_here(socket.getaddrinfo, 0)
