"""Networks: denoiser, vocoders, discriminators, image tower."""
