"""Sources: a VM's disk, frozen by one snapshot, as a device that knows which of its ranges need not be read.

In come the manager's datastores and the LUNs this proxy sees; out go disks and configuration files, opened by the
datastore paths the manager gives. Nothing here knows where the bytes go.
"""
