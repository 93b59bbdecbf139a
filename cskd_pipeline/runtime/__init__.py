"""The machine beneath: devices, ranks, launchers, signals, threads, memory and compiled code."""
