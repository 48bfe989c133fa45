"""The SAN: which LUNs this machine sees, and their bytes, read past the page cache and never written."""
