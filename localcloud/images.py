"""The table that says which local command stands for which container image."""

from __future__ import annotations

import importlib.resources
import sys
import tomllib
from pathlib import Path

from localcloud.settings import LocalcloudError

_SHAPE = 'a table [images] of lines such as "my-repository" = ["{python}", "-m", "my_program"]'


def load_images(path: Path | None) -> dict[str, tuple[str, ...]]:
    """Return image repository -> command, from this TOML file, or from the one that comes with the package.

    Raises LocalcloudError naming the file and the entry that is wrong.
    """
    name = str(path) if path is not None else "localcloud/images.toml"
    try:
        if path is not None:
            text = path.read_text()
        else:
            text = importlib.resources.files("localcloud").joinpath("images.toml").read_text()
        document = tomllib.loads(text)
    except OSError as exc:
        raise LocalcloudError(f"cannot read the image table {name}", detail=str(exc), code=2) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise LocalcloudError(
            f"the image table {name} is not TOML", detail=str(exc), hint=f"it holds {_SHAPE}", code=2
        ) from exc
    table = document.get("images")
    if not isinstance(table, dict):
        raise LocalcloudError(f"the image table {name} has no [images]", hint=f"it holds {_SHAPE}", code=2)
    images: dict[str, tuple[str, ...]] = {}
    for image, command in table.items():
        if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
            raise LocalcloudError(
                f"the image table {name} gives {image} no command",
                detail=f"found {command!r}",
                hint=f"it holds {_SHAPE}",
                code=2,
            )
        images[image] = tuple(word.replace("{python}", sys.executable) for word in command)
    return images
