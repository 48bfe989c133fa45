"""LTFS 2.4: files on tape that any LTFS implementation mounts. Written and read natively, without FUSE."""
