"""Pictures of the open corpus."""
