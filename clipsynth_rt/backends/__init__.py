"""Where graphs run. A backend is imported when it is asked for, not before."""
