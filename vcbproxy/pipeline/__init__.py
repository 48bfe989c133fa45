"""The data path: read a disk once, cut it into chunks, hand them to a target; and the way back.

    disk ─▶ reader ─▶ cutter ─▶ workers ─▶ target          backup.copy_disk
    disk ◀────────── workers ◀── target                    restore.restore_disk, restore.verify_disk

Bounded in memory, threaded, and quiet at the end: whoever starts a thread here also ends it. What a chunk is stands in
``docs/formats/chunking.md``; what a disk is comes as a ``MappedDevice``; what the target is, nobody here knows.
"""
