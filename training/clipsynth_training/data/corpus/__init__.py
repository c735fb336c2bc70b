"""The second edition of the open corpus: procedural models, recordings and soundfonts."""
