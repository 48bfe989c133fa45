"""Removing what no restore point needs, and keeping all that any does.

    lock (exclusive) ─▶ snapshots ─▶ index ─▶ packs listed                       survey.py
      ─▶ trees walked, each once; what they use is marked in the tables          used.py, table.py
      ─▶ one copy of each blob is chosen                                         copies.py
      ─▶ every pack's fate is decided: a pure function on arrays                 plan.py
      ─▶ strays go ─▶ new packs ─▶ new index ─▶ old index goes ─▶ old packs go   execute.py, repack.py, reindex.py

Until the last line nothing is changed; whatever is missing or damaged ends it before. In the last line a crash leaves
duplicates and strays at worst, which the next prune removes.

Memory does not grow with the number of blobs but for two bits and two bytes a blob: the tables lie in ``buckets.py``.
"""
