"""Models on the Hugging Face Hub: a folder that `export` wrote goes up, and comes down as such a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infdiff.errors import UserError, first_line

PREFIX = "hf://"

# What an exported folder holds. Nothing else is sent or fetched.
_PARTS = (
    r"README\.md",
    r"(config\.yaml|field\.json|labels\.json)",
    r"checkpoints/\d{8}/(ema_\w+\.safetensors|state\.json)",
    r"latents-\d{8}\.safetensors",
    r"latents/\d{8}/(config\.yaml|\w+\.safetensors|checkpoints/\d{8}/(ema_\w+\.safetensors|state\.json))",
)
_PART = re.compile("|".join(_PARTS))
# Files that run code when they are read. A place that has them holds another thing than an exported model.
_CODE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".joblib", ".py")
# Bytes: of a settings file as `config` takes them; of a state; of all files together.
_MOST = {".yaml": 1 << 20, ".json": 1 << 20, ".md": 1 << 20}
_MOST_ALTOGETHER = 64 << 30
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload an exported folder to OWNER/NAME, which is made if it is not there, and return its address.

    Raises UserError for a folder or a name that cannot be sent.
    """
    _check_name(name)
    if not (folder / "config.yaml").is_file() or not (folder / "README.md").is_file():
        raise UserError(f"{folder} is no exported model: write one with infdiff export")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    foreign = [path for path in files if not _PART.fullmatch(path)]
    if foreign:
        raise UserError(
            f"{folder} holds {foreign[0]}, which is no part of an exported model: export to a folder of its own"
        )
    hub = _hub()
    try:
        api = hub.HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="A model of infdiff")
        return f"{api.endpoint}/{name}"
    except Exception as error:
        raise UserError(f"cannot push to {name}: {_reason(error)}") from error


def fetch(name: str) -> Path:
    """Return the folder of a model OWNER/NAME, downloaded where it is not yet in the Hub's cache.

    Raises UserError when there is none, or it holds files that could run code, or files that are too large.
    """
    name, _, revision = name.removeprefix(PREFIX).partition("@")
    _check_name(name)
    hub = _hub()
    try:
        api = hub.HfApi()
        info = api.model_info(name, revision=revision or None, files_metadata=True)
        sizes = {entry.rfilename: int(entry.size or 0) for entry in info.siblings or ()}
        wanted = _checked(name, sizes)
        # The commit that was checked, whatever is pushed meanwhile.
        return Path(api.snapshot_download(name, revision=info.sha, allow_patterns=wanted))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot fetch {PREFIX}{name}: {_reason(error)}") from error


def _checked(name: str, sizes: Mapping[str, int]) -> list[str]:
    code = [path for path in sizes if path.lower().endswith(_CODE)]
    if code:
        raise UserError(f"{PREFIX}{name} holds {code[0]}, which may run code: only safetensors and YAML are taken")
    if "config.yaml" not in sizes:
        raise UserError(f"{PREFIX}{name} holds no model of infdiff (no config.yaml): see infdiff push")
    wanted = [path for path in sizes if _PART.fullmatch(path)]
    for path in wanted:
        if sizes[path] > _MOST.get(Path(path).suffix, _MOST_ALTOGETHER):
            raise UserError(f"{PREFIX}{name}: {path} has {sizes[path]:,} bytes, which is too large")
    if sum(sizes[path] for path in wanted) > _MOST_ALTOGETHER:
        raise UserError(f"{PREFIX}{name} is larger than {_MOST_ALTOGETHER >> 30} GiB")
    return wanted


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UserError(f"{name}: want OWNER/NAME of the Hub")


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("huggingface_hub is not installed: pip install 'infdiff[hub]'") from error
    return huggingface_hub


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return f"{status}: not there, or not yours (hf auth login)"
    return first_line(error)
