"""Training: the open corpus, the CLIP encoder, the diffusion U-Net and the vocoder, in PyTorch."""
