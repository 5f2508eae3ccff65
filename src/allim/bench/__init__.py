"""`allim bench`: figures of this machine, as ratios to what it could do, in one run.

Each case starts real processes (servers, relays, sinks) on an embedded database of its own.
Absolute times say little on a shared machine; ratios within one run do.
"""
