"""A repository in a bucket of any S3-compatible server, in the layout that stock restic uses.

    place       s3:https://host/bucket/prefix, as restic takes it
    client      boto3's client, made for one place
    failures    botocore's exceptions become ours, each with what to do next
    transfer    one PUT for small files, parts side by side for large ones; what arrived is compared
    lock        Object Lock: how long the server refuses to remove a file
    backend     the ``Backend`` itself
    uploads     multipart uploads that nobody finished
    probe       what the server really does with conditions, checksums and locks

Nothing here is imported before a bucket is named: boto3 takes a quarter of a second.
"""
