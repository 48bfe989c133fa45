"""How one schema becomes the next: run by ``schema.bring_up``, one step a file, forward only."""
