"""Serve a study's page and receive its answers, with FastAPI.

Only `site/` is public, and no endpoint returns answers.
"""

import os
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from likeness.app.study.answers import (
    AnswerConflictError,
    AnswerMessage,
    AnswerStore,
    OtherStudyError,
    RaterMessage,
    UnknownRaterError,
)
from likeness.app.study.connections import LimitedProtocol
from likeness.app.study.manifest import SITE, Study
from likeness.errors import ConfigError, ResourceError
from likeness.weights import sha256_of

MAX_BODY_BYTES = 65_536
COLLECT_SCRIPT = "window.COLLECT = true;\n"
"""Content of `collect.js` on a server; in the folder for static hosting it is false."""
RESPONSE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_BACKLOG = 128
"""Connections accepted in one turn of the event loop."""
_SHUTDOWN_S = 3
"""Seconds that Ctrl+C waits for open requests."""


class SiteFiles(StaticFiles):
    """Static files with the hash of their content as `ETag`; dates in requests are ignored.

    All files of a study have one date, and a study that is created again may have files of the same size.
    """

    def file_response(
        self, full_path: Any, stat_result: os.stat_result, scope: Any, status_code: int = 200
    ) -> Response:
        stat_key = (stat_result.st_ino, stat_result.st_size, stat_result.st_mtime_ns, stat_result.st_ctime_ns)
        etag = f'"{_content_hash(str(full_path), stat_key)}"'
        cached_etags = Request(scope).headers.get("if-none-match", "")
        if etag in [tag.strip().removeprefix("W/") for tag in cached_etags.split(",")]:
            return Response(status_code=304, headers={"ETag": etag})
        return FileResponse(full_path, status_code=status_code, headers={"ETag": etag}, stat_result=stat_result)


@lru_cache(maxsize=4096)
def _content_hash(path: str, stat_key: tuple[int, ...]) -> str:
    del stat_key  # Part of the cache key: a changed file is hashed again.
    return sha256_of(Path(path))[:32]


def build_app(folder: Path) -> FastAPI:
    """Create the web application of a study.

    Raises:
        ConfigError: The folder holds no study, or lacks its pages.
        ResourceError: Its answers are damaged, or cannot be used now.
    """
    study = Study.load(folder)
    if not (folder / SITE / "index.html").is_file():
        raise ConfigError(f"{folder / SITE} is gone or empty. Restore it, or create the study again in another folder.")
    store = AnswerStore(folder, study)
    app = FastAPI(title="likeness study", docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def limit_request_size(request: Request, forward: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST" and not _is_small(request):
            return _refuse(413, f"A request needs `Content-Length` and may have at most {MAX_BODY_BYTES} bytes.")
        response = await forward(request)
        response.headers.update(RESPONSE_HEADERS)
        if "last-modified" in response.headers:
            del response.headers["last-modified"]
        return response

    @app.exception_handler(ConfigError)
    def on_config_error(_request: Request, error: Exception) -> Response:
        conflict = 409 if isinstance(error, AnswerConflictError | OtherStudyError) else 422
        return _refuse(404 if isinstance(error, UnknownRaterError) else conflict, str(error))

    @app.exception_handler(ResourceError)
    def on_resource_error(_request: Request, error: Exception) -> Response:
        return _refuse(503, str(error))  # The page keeps the answer and retries.

    @app.exception_handler(RequestValidationError)
    def on_validation_error(_request: Request, error: Exception) -> Response:
        # The input is not echoed: numbers such as NaN are not valid JSON.
        assert isinstance(error, RequestValidationError)
        reasons = (f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
        return _refuse(422, "; ".join(reasons))

    @app.post("/api/raters")
    def register_rater(message: RaterMessage) -> dict[str, int]:
        _check_study(study, message.study)
        order_index = store.register_rater(message.rater)
        return {"plan": order_index}

    @app.post("/api/answers")
    def add_answer(message: AnswerMessage) -> dict[str, bool]:
        _check_study(study, message.study)
        return {"is_new": store.add(message)}

    @app.get("/api/health")
    def health() -> dict[str, str]:
        return {"study": study.key}

    @app.get("/collect.js")
    def collect_script() -> Response:
        return Response(COLLECT_SCRIPT, media_type="text/javascript")

    app.mount("/", SiteFiles(directory=folder / SITE, html=True))
    return app


def serve(app: FastAPI, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve a study, as `build_app` makes it, until interrupted.

    Raises:
        ResourceError: The port is taken.
    """
    server = uvicorn.Server(build_config(app, host=host, port=port))
    try:
        server.run()
    except SystemExit as error:
        raise ResourceError(
            f"Port {port} of {host} cannot be used; another program may have it. Choose one with `--port`."
        ) from error


def build_config(app: FastAPI, *, host: str, port: int, log_level: str = "warning") -> uvicorn.Config:
    """Configuration of uvicorn: limited connections, no WebSockets."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level,
        access_log=False,
        http=LimitedProtocol,
        ws="none",
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )


def _check_study(study: Study, study_key: str) -> None:
    if study_key != study.key:
        raise OtherStudyError(
            f"This was sent for the study `{study_key or 'without a name'}`, but the study here is `{study.key}`: it "
            "was created again. Reload the page and start again."
        )


def _is_small(request: Request) -> bool:
    length = request.headers.get("content-length", "")
    return length.isdecimal() and int(length) <= MAX_BODY_BYTES


def _refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message}}, status_code=status)
