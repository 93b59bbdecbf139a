"""The command line: turns options into calls of `cskd_pipeline` and errors into one line and an exit code.

Imports of torch stay inside the functions that need it, so that `--help`, `inspect` and `status` answer at once.
"""
