"""Where the files of CompressAI's zoo are.

The URLs are compressai's own (`compressai.zoo.image`), asked for when they are needed: importing it takes seconds.
"""

from __future__ import annotations

import warnings

from licodec.errors import UsageError, WeightsError


def url(model: str, metric: str, which: str) -> str:
    """Where compressai downloads the weights of a model from. Raises UsageError, WeightsError.

    Args:
        which: the quality's number in the zoo, or "vbr".
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what its own dependencies find deprecated
            from compressai.zoo import image, image_vbr
    except Exception as error:  # also what a torchvision that does not fit torch raises
        raise UsageError(f"compressai, which knows the address, cannot be imported ({error}); reinstall it") from None
    try:
        return str(
            image_vbr.model_urls[model][metric] if which == "vbr" else image.model_urls[model][metric][int(which)]
        )
    except KeyError:
        raise WeightsError(f"this compressai knows no weights of {model} for {metric}, {which}; update it") from None
