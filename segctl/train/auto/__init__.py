"""What a preset leaves open, as numbers: by the dataset, and by the memory there is."""
