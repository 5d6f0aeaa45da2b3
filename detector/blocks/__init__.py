"""Building blocks of the network. They import torch only."""
