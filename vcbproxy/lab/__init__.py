"""A datacenter in a folder: LUN images with VMFS on them, a manager on the wire, a guest that writes.

Nothing of vcbproxy's readers is used here, not even their constants: a builder that shared them would err as they do,
and every test that compares the two would pass.
"""
