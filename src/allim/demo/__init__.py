"""`allim demo`: the real thing on a database of its own, told as it happens.

Starts `allim up` as anybody would, speaks to it over HTTP only, and shows what its API says
afterwards. Every figure is read from there.
"""
