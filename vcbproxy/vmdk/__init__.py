"""Virtual disks: descriptors, flat and sparse files, snapshot chains. In: files. Out: one `MappedDevice` a disk."""
