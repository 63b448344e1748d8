"""Numbers for what a preset leaves open, chosen by the dataset and by the memory of the device."""
