"""The survey's page and the door for answers, by FastAPI on one machine.

Only `site/` is public. The page tells nobody which system made a video, and nothing here reads answers back.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from likeness.app.study.answers import (
    AnswerConflictError,
    AnswerMessage,
    AnswerStore,
    RaterMessage,
    UnknownRaterError,
)
from likeness.app.study.manifest import SITE, Study
from likeness.errors import ConfigError, ResourceError

MAX_BODY_BYTES = 65_536
COLLECT = "window.COLLECT = true;\n"
"""What `collect.js` says when a server is there; in the folder for static hosting it says false."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def build_app(folder: Path) -> FastAPI:
    """Make the web application of a study.

    Raises:
        ConfigError: The folder holds no study, or lacks its pages.
        ResourceError: Its answers are damaged, or cannot be used now.
    """
    study = Study.load(folder)
    if not (folder / SITE / "index.html").is_file():
        raise ConfigError(
            f"{folder / SITE} is gone or empty. Put it back, or create the study anew in another folder."
        )
    store = AnswerStore(folder, study)
    app = FastAPI(title="likeness study", docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, forward: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST" and not _is_small(request):
            return _refuse(413, f"An answer has at most {MAX_BODY_BYTES} bytes and says how many.")
        response = await forward(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(ConfigError)
    def explain(_request: Request, error: Exception) -> Response:
        conflict = 409 if isinstance(error, AnswerConflictError) else 422
        return _refuse(404 if isinstance(error, UnknownRaterError) else conflict, str(error))

    @app.exception_handler(ResourceError)
    def postpone(_request: Request, error: Exception) -> Response:
        return _refuse(503, str(error))  # The page keeps the answer and sends it again.

    @app.exception_handler(RequestValidationError)
    def refuse(_request: Request, error: Exception) -> Response:
        # What was sent is not repeated: numbers such as NaN are no JSON.
        assert isinstance(error, RequestValidationError)
        reasons = (f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
        return _refuse(422, "; ".join(reasons))

    @app.post("/api/raters")
    def begin(message: RaterMessage) -> dict[str, int]:
        return {"plan": store.begin(message.rater)}

    @app.post("/api/answers")
    def answer(message: AnswerMessage) -> dict[str, bool]:
        return {"is_new": store.add(message)}

    @app.get("/api/health")
    def health() -> dict[str, str]:
        return {"study": study.key}

    @app.get("/collect.js")
    def collect() -> Response:
        return Response(COLLECT, media_type="text/javascript")

    app.mount("/", StaticFiles(directory=folder / SITE, html=True))
    return app


def serve(app: FastAPI, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve a study, as `build_app` makes it, until interrupted.

    Raises:
        ResourceError: The port is taken.
    """
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False))
    try:
        server.run()
    except SystemExit as error:
        raise ResourceError(
            f"Port {port} of {host} cannot be used; another program may have it. Choose one with `--port`."
        ) from error


def _is_small(request: Request) -> bool:
    length = request.headers.get("content-length", "")
    return length.isdecimal() and int(length) <= MAX_BODY_BYTES


def _refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message}}, status_code=status)
