"""What a process runs on: device, precision, memory, cores, the other processes of its run, signals, and phases of a step."""
