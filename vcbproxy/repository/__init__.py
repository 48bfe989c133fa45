"""Restore points in restic's repository format v2, readable by stock restic; and stock restic's, readable by us.

    backend   files by kind and name; knows nothing of content      directory | memory
       ▲
    crypto    sealed messages: AES-256-CTR, Poly1305-AES            keys  password → master key
       ▲
    codec     JSON as restic writes it      pack  blobs in a file   index  where blobs lie
       ▲
    packer    plaintext → sealed, verified, packed                  session  packs → durable → index
       ▲
    repository  opens all that              lock  tree  snapshot    check
       ▲
    target    restore points: begin, points, open                   writer  reader  points  manifest

Facts about the format come from restic's design document and from what restic 0.14 and 0.18 accept.
"""
