"""COCO evaluation without a trainer."""
