"""How good the voice is: systems, measures with intervals, the report, and listening tests."""
