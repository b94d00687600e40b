"""The face engines of an evaluation: one for identity, one for landmarks; both can be the same."""

from dataclasses import dataclass

from likeness.errors import WeightsError
from likeness.faces import DlibEngine, FaceEngine, default_engine, load_engine
from likeness.faces.engines.onnx_engine import ENGINE_SPECS
from likeness.weights import locate


@dataclass(frozen=True, kw_only=True, slots=True)
class Engines:
    """Names of the engines; names can be pickled for worker processes, engines cannot."""

    identity: str
    """Detects and embeds faces, for similarities, distances and rates."""
    landmarks: str
    """Gives the five landmarks for face motion."""

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
    """Resolve names of engines, short ones included; None is the default engine.

    Raises:
        ConfigError: No engine has that name.
    """
    identity = (default_engine() if engine is None else load_engine(engine)).name
    return Engines(
        identity=identity,
        landmarks=identity if landmark_engine is None else load_engine(landmark_engine).name,
    )


def check_weights(engines: Engines) -> None:
    """Check that the models of both engines are installed.

    Raises:
        WeightsError: Some are missing; the message lists all of them.
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
