"""SCSI, as far as tape drives and robots need it: commands, sense, and the ways in which they travel."""
