"""The CLIP encoder: text tower, image tower, and their training."""
