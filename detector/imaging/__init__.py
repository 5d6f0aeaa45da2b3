"""Read, letterbox and draw images."""
