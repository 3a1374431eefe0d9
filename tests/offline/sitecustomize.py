"""On the PYTHONPATH of a process, this makes every attempt to reach a network an error."""

import socket


def _refuse(*args, **_):
    raise RuntimeError(f"network access attempted: {args[1:]}")


socket.socket.connect = _refuse
socket.socket.connect_ex = _refuse
socket.getaddrinfo = _refuse
