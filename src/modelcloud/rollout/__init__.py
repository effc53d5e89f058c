"""From one generation to the next: pure decisions, and the loop that carries them out."""
