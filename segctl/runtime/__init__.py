"""What a process runs on: device, memory, cores, other processes, signals, and the phases of its time."""
