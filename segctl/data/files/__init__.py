"""Files in folders and archives, the pictures in them, and a lock."""
