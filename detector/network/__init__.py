"""The network: images in, detections out; and its backbone as a classifier, for pre-training.

config.py      DetectorConfig and the table of variants
blocks.py      convolutions, attention, CSP stages
backbone.py    images -> feature maps
neck.py        feature maps -> combined feature maps
head.py        feature maps -> raw boxes and scores of both branches
boxes.py       geometry of boxes
decode.py      raw outputs -> detections
model.py       Detector and build_detector put the parts together
classifier.py  Classifier and build_classifier: a backbone with a last layer for classes
"""
