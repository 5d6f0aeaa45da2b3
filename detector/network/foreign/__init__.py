"""Backbones that are not our own: networks of timm, and ParameterNets. They need timm; nothing else imports this package.

adapter.py       ForeignBackbone: normalizes images, and gives the maps the channels that our neck expects
timm_trunk.py    networks of timm without their classifier; their names, tags and feature maps
ghost.py         the trunk of a ghost network: the last group of each stride
classifiers.py   whole classifiers with such a trunk, for pre-training
parameternet.py  ParameterNet, as a classifier and as a trunk
fold.py          folds normalization into convolutions, for inference
places.py        groups of convolutions of a trunk, for ``where`` of DynamicConfig

A *trunk* is a classifier without the layers after its last feature map. Its weights have the classifier's names.
"""
