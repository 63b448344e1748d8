"""Archives, their members, and the pictures in them."""
