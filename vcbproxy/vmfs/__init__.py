"""A strict reader for VMFS-3, -5 and -6 volumes, straight off the LUNs.

    devices ── partition ── lvm ── span ──▶ logical volume        LUNs in, one byte range out
       logical volume ── descriptor ── view ──▶ inodes            system files, read at one moment
          inode ── blocks ── runs ──▶ where each byte lies        the map of a file, checked
             volume, file, probe, directory                       what other packages use

What comes in are devices (``vcbproxy.device.Device``); what goes out are ``file.VmfsFile`` objects: devices that
know where on which LUN each of their bytes lies and which ranges read as zeroes. Promised: every byte is the
file's, or a ``SourceError`` says which check failed. A hole or a to-be-zeroed block reads as zeroes, anything
unknown raises.

Nothing is ever written and no SCSI command is sent. Nothing read is kept from one opened file to the next, because
the hosts change the metadata under us.
"""
