"""Labeled images for classification: class folders or COCO files, samples, loaders."""
