"""From a query to a sound."""
