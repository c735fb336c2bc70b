"""How good the voice is: classifier, Fréchet audio distance, the report."""
