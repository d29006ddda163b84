"""`licodec compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from licodec.cli.common import Options, read_source, write_target
from licodec.errors import LicodecError, UsageError

if TYPE_CHECKING:
    import numpy as np

GAIN = 8  # of the difference picture, so that a level of 1 can be seen


def compare(
    first: Annotated[str, typer.Argument(help="A picture or a .lic file.")],
    second: Annotated[str, typer.Argument(help="Another of the same size.")],
    out: str | None = typer.Option(None, "-o", "--output", help=f"Write the differences, times {GAIN}, as a picture."),
    force: bool = Options.force,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Measure how much two pictures differ.

    PSNR over all RGB samples, MS-SSIM (with the extra licodec[bench]), SSIMULACRA 2
    (of the second against the first), the largest difference and how many samples
    differ.
    """
    import numpy as np

    from licodec import imaging, output
    from licodec.bench.metrics import METRICS, available
    from licodec.search import pixel_psnr

    a, b = _pixels(first), _pixels(second)
    if a.dtype != b.dtype:
        a, b = (imaging.to_eight_bit(p) if p.dtype == np.uint16 else p for p in (a, b))
    if a.shape != b.shape:
        sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (a, b))
        raise UsageError(f"{first} and {second} differ in size, {sizes}")
    difference = np.abs(a.astype(np.int32) - b)
    value = pixel_psnr(a, b)
    eight = [imaging.Picture(p).eight_bit().pixels for p in (b, a)]
    scores = {m.replace("-", "_"): METRICS[m](*eight) for m in METRICS if m != "lpips" and available(m)}
    largest, differ = int(difference.max()), float((difference > 0).mean())
    if out is not None:
        peak = np.iinfo(a.dtype).max
        picture = imaging.Picture(np.minimum(difference * GAIN, peak).astype(a.dtype))
        write_target(out, output.to_bytes(picture, output.format_of(Path(out))), force)
    if as_json:
        psnr = {"psnr": value if np.isfinite(value) else None}
        print(json.dumps(psnr | scores | {"largest_difference": largest, "samples_that_differ": differ}))
        return
    print(f"PSNR                {f'{value:.3f} dB' if np.isfinite(value) else 'the pictures are equal'}")
    for name, label, digits in (("ms_ssim", "MS-SSIM", 5), ("ssimulacra2", "SSIMULACRA 2", 2)):
        if (score := scores.get(name)) is not None:
            print(f"{label:<19} {score:.{digits}f}")
    print(f"largest difference  {largest}")
    print(f"samples that differ {100 * differ:.3f} %")


def _pixels(path: str) -> np.ndarray:
    """uint8 [H, W, 3] of a picture or a .lic. Raises LicodecError that names the file."""
    from licodec import inputs

    try:
        return inputs.read(read_source(path), name=path).rgb
    except LicodecError as error:
        raise type(error)(f"{path}: {error}") from None
