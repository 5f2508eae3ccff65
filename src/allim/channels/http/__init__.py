"""Outgoing HTTP/1.1: one client for all channels, over kept connections.

`client.py` is what channels call, `target.py` what a URL means, `pool.py` makes and keeps
connections, `connection.py` is one of them, `names.py` looks names up. Why it is not a library:
`docs/decisions/0016-a-lean-http-client.md`.
"""
