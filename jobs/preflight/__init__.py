"""Preflight: is everything there that a backup needs? Each check names the real cause and what to do about it.

manager ─▶ certificate, version, clocks ─▶ VMs, privileges, leftovers ─▶ datastores ─▶ LUNs ─▶ tape ─▶ repository

All are made, whatever fails; nothing is changed by any of them.
"""
