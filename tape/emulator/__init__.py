"""A tape library made of folders: drives and a robot that answer SCSI, cartridges that any file manager can look into.

Shipped to users: to try everything out without hardware, to rehearse disasters, and as a library on disk.
"""
