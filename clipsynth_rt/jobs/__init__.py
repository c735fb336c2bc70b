"""Work over many clips: batches from CSV files, and benchmarks."""
