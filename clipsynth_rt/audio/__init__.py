"""Sound: finished clips and their files, loading, loudness, mel spectrograms, plots."""
