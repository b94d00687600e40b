"""Which face engines an evaluation uses: one says who a face is, one where its landmarks are; both can be the same."""

from dataclasses import dataclass

from likeness.errors import WeightsError
from likeness.faces import DlibEngine, FaceEngine, default_engine, load_engine
from likeness.faces.engines.onnx_engine import ENGINE_SPECS
from likeness.weights import locate


@dataclass(frozen=True, kw_only=True, slots=True)
class Engines:
    """Names of engines. A record and not the engines themselves, so that it reaches worker processes."""

    identity: str
    """Finds faces and gives embeddings; similarities, distances and rates come from it."""
    landmarks: str
    """Gives the five landmarks of face motion."""

    @property
    def are_separate(self) -> bool:
        return self.identity != self.landmarks

    @property
    def identity_engine(self) -> FaceEngine:
        return load_engine(self.identity)

    @property
    def landmark_engine(self) -> FaceEngine:
        return load_engine(self.landmarks)


def choose_engines(engine: str | None = None, landmark_engine: str | None = None) -> Engines:
    """Engines by their names, short ones included; the default engine for both where none is named.

    Raises:
        ConfigError: No engine has that name.
    """
    identity = (default_engine() if engine is None else load_engine(engine)).name
    return Engines(
        identity=identity,
        landmarks=identity if landmark_engine is None else load_engine(landmark_engine).name,
    )


def check_weights(engines: Engines) -> None:
    """Look for the models of both engines before any video is opened.

    Raises:
        WeightsError: Some are not here; all of them are named.
    """
    problems: dict[str, str] = {}
    lacking = []
    for engine in dict.fromkeys((engines.identity, engines.landmarks)):
        for weights in _weights_of(engine):
            try:
                locate(weights)
            except WeightsError as error:
                problems[weights] = str(error)
                lacking.append(engine)
    if problems:
        names = " and ".join(f"`{name}`" for name in dict.fromkeys(lacking))
        raise WeightsError(f"The face engine {names} lacks weights.\n" + "\n".join(problems.values()))


def _weights_of(engine: str) -> tuple[str, ...]:
    if engine == DlibEngine.name:
        return ("dlib-landmarks", "dlib-recognizer")
    parts = ENGINE_SPECS[engine]
    return (parts.detector_file[0], parts.recognizer_file[0])
