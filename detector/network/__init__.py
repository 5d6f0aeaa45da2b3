"""The network: images in, detections out."""
