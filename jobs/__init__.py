"""Job logic: what is backed up, restored and verified, and what happens when something fails."""
