"""Other words for the concepts of the open corpus."""
