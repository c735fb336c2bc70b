"""The diffusion U-Net and its training."""
