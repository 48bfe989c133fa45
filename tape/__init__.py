"""Tape hardware and LTFS. This package never heard of virtual machines."""
