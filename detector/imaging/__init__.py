"""Images: read, letterbox and draw them; plots by matplotlib."""
