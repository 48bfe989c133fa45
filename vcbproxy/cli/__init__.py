"""The command line: one file a command; parse, call one function, print. stdout is data, stderr is talk."""
