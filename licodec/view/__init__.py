"""A local page that shows pictures: decoded, beside the original, and where the bits are."""
