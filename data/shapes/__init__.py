"""The embedded data set: drawn shapes in COCO format."""
