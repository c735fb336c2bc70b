"""Real recordings of the open corpus: ledger, fetching, reading and variation."""
