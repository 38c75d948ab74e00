"""Moving pictures: GIF and WebP by Pillow, MP4 by the optional package imageio-ffmpeg."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infdiff.coordinates import Size, format_size
from infdiff.errors import OptionError, UserError
from infdiff.files import whole_file

# A GIF counts time in hundredths of a second, and browsers slow down frames of less than two.
MOST_FPS = 50


def check_video(path: Path, size: Size) -> None:
    """Raise OptionError for a name whose ending is no format of videos, or a format that cannot be written here."""
    if path.suffix.lower() not in _WRITERS:
        raise OptionError("out", path, f"want a file name that ends in {', '.join(_WRITERS)}")
    if path.suffix.lower() == ".mp4":
        _ffmpeg(path)
        if size[0] % 2 or size[1] % 2:
            raise OptionError("out", path, f"MP4 takes even sizes, not {format_size(size)}; .webp and .gif take any")


def save_video(frames: Iterable[Image.Image], path: Path, size: Size, fps: float) -> None:
    """Write RGB frames of one size, which are taken one by one. Raises UserError when the file cannot be written."""
    with whole_file(path) as partial:
        _WRITERS[path.suffix.lower()](frames, partial, size, fps)


def _save_gif(frames: Iterable[Image.Image], path: Path, size: Size, fps: float) -> None:
    # Each frame has colours of its own; a frame is kept with a byte a pixel until all are there.
    palettes = [frame.quantize(256, method=Image.Quantize.MEDIANCUT) for frame in frames]
    ends = [round(100 * number / fps) for number in range(len(palettes) + 1)]
    durations = [10 * (end - begin) for begin, end in pairwise(ends)]
    palettes[0].save(path, "GIF", save_all=True, append_images=palettes[1:], duration=durations, loop=0, optimize=False)


def _save_webp(frames: Iterable[Image.Image], path: Path, size: Size, fps: float) -> None:
    first, *rest = frames
    ends = [round(1000 * number / fps) for number in range(len(rest) + 2)]
    durations = [end - begin for begin, end in pairwise(ends)]
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, quality=90)


def _save_mp4(frames: Iterable[Image.Image], path: Path, size: Size, fps: float) -> None:
    writer = _ffmpeg(path)(
        path,
        (size[1], size[0]),
        fps=fps,
        quality=8,
        macro_block_size=2,
        output_params=["-f", "mp4", "-movflags", "+faststart"],
    )
    try:
        next(writer)
        for frame in frames:
            writer.send(np.asarray(frame).tobytes())
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write {path}: FFmpeg: {error}") from error
    finally:
        writer.close()


def _ffmpeg(path: Path) -> Callable[..., Generator[Any, Any, Any]]:
    try:
        from imageio_ffmpeg import get_ffmpeg_exe, write_frames

        get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise OptionError("out", path, f"{error}: pip install 'infdiff[video]', or use .webp or .gif") from error
    return write_frames


_WRITERS: dict[str, Callable[[Iterable[Image.Image], Path, Size, float], None]] = {
    ".webp": _save_webp,
    ".gif": _save_gif,
    ".mp4": _save_mp4,
}
