"""Checkpoints of the authors to weights files of ours: `licodec convert-upstream`.

A checkpoint is a pickle from a stranger: it is loaded with `weights_only=True`,
so nothing in it is executed. `layouts` tells which model its tensors are of and
how their names translate; every tensor is accounted for.
"""
