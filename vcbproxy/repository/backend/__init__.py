"""Where a repository's files are kept: a directory, or memory."""
