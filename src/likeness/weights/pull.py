"""Fetches weights from the network or from a folder, resumes interrupted downloads, and verifies files before use.

The only module that opens a network connection, and only on request. `huggingface_hub` does the transfer with retries
and range requests; partial files are managed here, because that library deletes them.
"""

import fnmatch
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

from likeness.errors import WeightsError
from likeness.weights import LICENCE_PRESETS, MODELS, entry, names, verify_quickly
from likeness.weights.files import file_problem, write_listing
from likeness.weights.hashes import cached_sha256, store_sha256
from likeness.weights.local_files import ProgressCallback, copy_files, extract_archive, missing_in, refuse_incomplete
from likeness.weights.records import HubSource, LicencePreset, UrlSource, WeightEntry, WeightFile, ZipSource

_MIN_FREE_BYTES = 1 << 20
"""Disk space that must remain free after a download."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Download:
    """One file to fetch."""

    file: WeightFile
    url: str
    headers: dict[str, str] | None = None


def pull(
    name: str,
    *,
    preset: LicencePreset = "open",
    folder: Path | None = None,
    on_progress: ProgressCallback | None = None,
) -> WeightEntry:
    """Fetch the weights `name`, and others that they need, to where `locate` finds them. Complete files are skipped.

    Args:
        name: One of `MODELS`.
        preset: Intended use. Weights of a more restricted preset are refused.
        folder: Copy the files (or their archive) from here instead of the network.
        on_progress: Called with the progress of every file.

    Raises:
        WeightsError: The name is unknown, the preset does not allow these weights, they cannot be fetched, or they fail
            a check. An interrupted download is resumed at the next call.
    """
    if name in names():
        raise WeightsError(
            f"The weights `{name}` come with the package; there is nothing to pull. {entry(name).remedy}"
        )
    item = entry(name)
    refuse_forbidden(item, preset)
    for needed in item.needs:
        refuse_forbidden(entry(needed), preset)
    if folder is not None:
        refuse_incomplete(item, folder)
    # Required weights are small and come first: if they fail, nothing large was copied for nothing.
    for needed in item.needs:
        _pull_needed(needed, preset, folder, on_progress)
    report = on_progress or (lambda _name, _done, _total: None)
    item.folder.mkdir(parents=True, exist_ok=True)
    with _exclusive(item):
        if folder is not None:
            revision, files = "copied", copy_files(item, folder, report)
        elif isinstance(item.source, ZipSource):
            revision, files = "archive", extract_archive(item, _fetch_archive(item, item.source, report), report)
        else:
            revision, downloads = _plan(item)
            files = [_fetch(download, item, report) for download in downloads]
        _write_listing(item, revision, files)
    return verify_quickly(name)


def _pull_needed(name: str, preset: LicencePreset, folder: Path | None, on_progress: ProgressCallback | None) -> None:
    """Fetch required weights: from the folder if it has them, else from their own source."""
    try:
        verify_quickly(name)
    except WeightsError:
        from_folder = folder if folder is not None and not missing_in(entry(name), folder) else None
        pull(name, preset=preset, folder=from_folder, on_progress=on_progress)


def refuse_forbidden(item: WeightEntry, preset: str) -> None:
    """Refuse weights with a licence that the preset does not allow.

    Raises:
        WeightsError: The preset is unknown or less restricted than the weights.
    """
    if preset not in LICENCE_PRESETS:
        raise WeightsError(f"`{preset}` is no preset. Use one of {', '.join(LICENCE_PRESETS)}.")
    if LICENCE_PRESETS.index(preset) < LICENCE_PRESETS.index(item.preset):
        raise WeightsError(
            f"The preset `{preset}` does not allow `{item.name}`: its licence is {item.licence}. If your use complies "
            f"with it, run `likeness models pull {item.name} --preset {item.preset}`."
        )


@contextmanager
def _exclusive(item: WeightEntry) -> Iterator[None]:
    """Lock the entry, so that two processes never write the same partial file."""
    from huggingface_hub.utils import WeakFileLock

    with WeakFileLock(item.folder.with_name(f".{item.name}.lock")):
        yield


def _plan(item: WeightEntry) -> tuple[str, list[_Download]]:
    """The revision, and all files to fetch."""
    if isinstance(item.source, UrlSource):
        return "", [_Download(file=item.files[0], url=item.source.url)]
    assert isinstance(item.source, HubSource)
    return _plan_hub(item, item.source)


def _plan_hub(item: WeightEntry, source: HubSource) -> tuple[str, list[_Download]]:
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    # Read at call time, so that a mirror can be set after import.
    endpoint = os.environ.get("HF_ENDPOINT")
    with _network_errors(item, f"the list of files of {source.repository}"):
        info = HfApi(endpoint=endpoint).model_info(source.repository, revision=source.revision, files_metadata=True)
    listed = {file.path.relative_to(item.folder).as_posix(): file for file in item.files}
    offered = {sibling.rfilename: sibling for sibling in info.siblings or []}
    required = {file.path.as_posix() for file in MODELS[item.name].files}
    if absent := sorted(required - offered.keys()):
        raise WeightsError(
            f"{source.repository}@{source.revision} has no {', '.join(absent)}. Update likeness, or put the files "
            f"into {item.folder} yourself."
        )
    downloads = []
    for path, sibling in offered.items():
        if path not in listed and not any(fnmatch.fnmatch(path, pattern) for pattern in source.patterns):
            continue
        target = item.folder / path
        if not target.resolve().is_relative_to(item.folder.resolve()):
            raise WeightsError(f"{source.repository} offers {path!r}, which would lie outside {item.folder}.")
        file = _complete(listed.get(path) or WeightFile(path=target), sibling)
        url = hf_hub_url(source.repository, path, revision=info.sha, endpoint=endpoint)
        downloads.append(_Download(file=file, url=url, headers=build_hf_headers()))
    return info.sha or source.revision, downloads


def _complete(file: WeightFile, sibling: Any) -> WeightFile:
    """Complete a file record with the hub's data; values of the table have priority."""
    return replace(
        file,
        sha256=file.sha256 or (sibling.lfs.sha256 if sibling.lfs else None),
        size_bytes=file.size_bytes or sibling.size,
        # For a file in LFS the blob hash is that of the pointer, not of the content.
        git_sha1=None if sibling.lfs else sibling.blob_id,
    )


def _fetch(download: _Download, item: WeightEntry, report: ProgressCallback) -> WeightFile:
    """Download one file, resuming a partial one, verify it and move it to its final path."""
    file = download.file
    if (file.sha256 or file.git_sha1) and file_problem(file, cached_sha256) is None:
        report(file.path.name, file.path.stat().st_size, file.size_bytes)
        return file
    file.path.parent.mkdir(parents=True, exist_ok=True)
    part = file.path.with_name(f".{file.path.name}.part")
    _refuse_full_disk(item, file, part)
    with _network_errors(item, download.url):
        _receive(download, part, report)
    arrived = replace(file, path=part)
    if problem := file_problem(arrived):
        part.unlink(missing_ok=True)
        raise WeightsError(
            f"The download of `{item.name}` is not what was expected: {problem}. It was deleted. {item.remedy}"
        )
    part.replace(file.path)
    if file.sha256:
        store_sha256(file.path, file.sha256)
    return file


def _receive(download: _Download, part: Path, report: ProgressCallback) -> None:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    file = download.file
    name, size_bytes = file.path.name, file.size_bytes
    if size_bytes is not None and part.is_file() and part.stat().st_size > size_bytes:
        part.unlink()
    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with _CountingFile(part, lambda done: report(name, done, size_bytes)) as target:
            http_get(
                download.url,
                target,
                resume_size=target.tell(),
                # A compressed transfer could not be resumed at a byte offset of the file.
                headers={**(download.headers or {}), "Accept-Encoding": "identity"},
                expected_size=size_bytes,
            )
    except HfHubHTTPError as error:
        # 416: the partial file already has the full size. The checksum decides whether it is right.
        if error.response.status_code != 416:
            raise
    finally:
        if had_bars:
            enable_progress_bars()


class _CountingFile(BufferedWriter):
    """A file opened for appending that reports its length after each write."""

    def __init__(self, path: Path, on_length: Callable[[int], None]) -> None:
        super().__init__(FileIO(path, "ab"))
        self._on_length = on_length

    def write(self, data: Any, /) -> int:
        count = super().write(data)
        self._on_length(self.tell())
        return count


def _fetch_archive(item: WeightEntry, source: ZipSource, report: ProgressCallback) -> Path:
    path = item.folder / f".{item.name}.zip"
    if all(file.sha256 and file_problem(file) is None for file in item.files):
        return path
    file = WeightFile(path=path, sha256=source.sha256, size_bytes=source.size_bytes)
    return _fetch(_Download(file=file, url=source.url), item, report).path


def _write_listing(item: WeightEntry, revision: str, files: list[WeightFile]) -> None:
    """Store checksums of the fetched files, so that `verify` can check every byte."""
    record = {
        "licence": item.licence,
        "preset": item.preset,
        "source": item.source.address if item.source else "",
        "revision": revision,
        "files": {
            file.path.relative_to(item.folder).as_posix(): {
                "sha256": file.sha256 or cached_sha256(file.path),
                "size_bytes": file.path.stat().st_size,
            }
            for file in files
        },
    }
    write_listing(item.folder, record)


def _refuse_full_disk(item: WeightEntry, file: WeightFile, part: Path) -> None:
    if file.size_bytes is None:
        return
    here = part.stat().st_size if part.is_file() else 0
    needed, free = file.size_bytes - here, shutil.disk_usage(part.parent).free
    if needed + _MIN_FREE_BYTES > free:
        raise WeightsError(
            f"{file.path.name} of `{item.name}` needs {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free at "
            f"{item.folder}. Make room, or name another place with LIKENESS_HOME."
        )


@contextmanager
def _network_errors(item: WeightEntry, what: str) -> Iterator[None]:
    """Turn network errors into a `WeightsError` that names the file and the offline alternative."""
    from huggingface_hub.errors import GatedRepoError, HTTPError  # pyright: ignore[reportPrivateImportUsage]

    try:
        yield
    except WeightsError:
        raise
    except GatedRepoError as error:
        raise WeightsError(
            f"{what} asks for consent to its terms. Give it on the hub's page, log in with `hf auth login`, and pull "
            "again."
        ) from error
    except (OSError, HTTPError) as error:
        raise WeightsError(
            f"{what} cannot be had: {error}\nPartial files are kept, and the same command resumes them. Without a "
            f"network, put the files into {item.folder} yourself, or name their folder: `likeness models pull "
            f"{item.name} --preset {item.preset} --from FOLDER`."
        ) from error
