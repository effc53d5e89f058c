"""Where workers run, behind one interface."""
