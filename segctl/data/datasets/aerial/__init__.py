"""Pictures from above, as published: DeepGlobe's land cover, buildings and roads."""
